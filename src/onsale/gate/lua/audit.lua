-- Adds up an event's orders, changing nothing: the gate's books at one instant.
--
-- KEYS    1 sale  2 avail  3 orders  4 capacity
-- ARGV    1 epoch
-- returns { 'LOST' }, or { live orders, tier number, capacity, units left, units taken by orders, … }
-- keeps   nothing; proves avail = capacity - sum of orders. It reads every order in one step, so
--         others wait: for an auditor, not for a loop

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return { 'LOST' } end

local taken, orders = {}, redis.call('HVALS', KEYS[3])
for _, order in ipairs(orders) do
  local items = { string.byte(order, 21, -1) }
  for i = 1, #items, 2 do taken[items[i]] = (taken[items[i]] or 0) + items[i + 1] end
end

local reply = { #orders }
local capacity = redis.call('HGETALL', KEYS[4])
for i = 1, #capacity, 2 do
  local tier = tonumber(capacity[i])
  reply[#reply + 1] = tier
  reply[#reply + 1] = tonumber(capacity[i + 1])
  reply[#reply + 1] = tonumber(redis.call('HGET', KEYS[2], capacity[i])) or 0
  reply[#reply + 1] = taken[tier] or 0
end
return reply
