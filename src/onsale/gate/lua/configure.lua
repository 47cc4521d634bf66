-- Sets switch and capacities outright, so that saying it twice is saying it once.
--
-- KEYS    1 sale  2 avail  3 capacity
-- ARGV    1 epoch in force or being loaded  2 switch  3 version of switch and capacities
--         then two per tier: its number and its capacity, units
-- returns { 'LOST' }, or { changes made, tier number, units left, … }; with an older version than
--         the gate has heard of, { 0 }
-- keeps   avail = capacity - sum of orders: avail moves by what the capacity moves

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'loading', 'switch', 'version')
if sale[1] ~= ARGV[1] and sale[2] ~= ARGV[1] then return { 'LOST' } end
if tonumber(ARGV[3]) < tonumber(sale[4]) then return { 0 } end
redis.call('HSET', KEYS[1], 'version', ARGV[3])

local changes = 0
if sale[3] ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'switch', ARGV[2])
  changes = 1
end

local reply = { 0 }
for i = 4, #ARGV, 2 do
  local tier, capacity = ARGV[i], tonumber(ARGV[i + 1])
  local difference = capacity - (tonumber(redis.call('HGET', KEYS[3], tier)) or 0)
  if difference ~= 0 then
    redis.call('HSET', KEYS[3], tier, capacity)
    changes = changes + 1
  end
  reply[#reply + 1] = tonumber(tier)
  reply[#reply + 1] = redis.call('HINCRBY', KEYS[2], tier, difference)
end
reply[1] = changes
return reply
