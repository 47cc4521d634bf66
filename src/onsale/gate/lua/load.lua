-- Begins to load an event's gate: everything of an earlier epoch goes, all stock is there, and
-- nobody is admitted until open.lua ends the loading.
--
-- KEYS    1 sale  2 avail  3 orders  4 buyers  5 seen  6 capacity
-- ARGV    1 epoch to load ('<generation>.<run id>')  2 switch  3 opens at, ms  4 closes at, ms
--         5 limit per buyer, units (0: none)  6 version of switch and capacities
--         then two per tier: its number and its capacity, units
-- returns { 'LOST' } when a gate of the same or a later generation is there, else { 1 }
-- keeps   avail = capacity - sum of orders, which are none

local function generation(epoch) return tonumber(string.match(epoch or '', '^%d+')) or 0 end

local there = redis.call('HMGET', KEYS[1], 'epoch', 'loading')
local newest = math.max(generation(there[1] or ''), generation(there[2] or ''))
if generation(ARGV[1]) <= newest then return { 'LOST' } end

redis.call('UNLINK', unpack(KEYS))
redis.call('HSET', KEYS[1], 'loading', ARGV[1], 'switch', ARGV[2], 'opens_ms', ARGV[3],
  'closes_ms', ARGV[4], 'limit', ARGV[5], 'version', ARGV[6])
for i = 7, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('HSET', KEYS[6], ARGV[i], ARGV[i + 1])
end
return { 1 }
