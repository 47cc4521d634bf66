-- Adds up an event's orders, changing nothing: the gate's books at one instant.
--
-- KEYS    1 sale  2 avail  3 orders  4 capacity  5 seen
-- ARGV    1 epoch  2 how many orders to add up at most: it reads them in one step, so others wait
-- returns { 'LOST' }, or { live orders, orders ever admitted, tier number, capacity, units left, units
--         taken by orders, … }; -1 for units taken when there are more orders than that
-- keeps   nothing; proves avail = capacity - sum of orders. Where the first two numbers are the same
--         at two instants, so were the orders all the time between them: what comes is counted by the
--         second, and what goes, with nothing come, by the first

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return { 'LOST' } end

local live = redis.call('HLEN', KEYS[3])
local adds_up = live <= tonumber(ARGV[2])
local taken = {}
for _, order in ipairs(adds_up and redis.call('HVALS', KEYS[3]) or {}) do
  local items = { string.byte(order, 21, -1) }
  for i = 1, #items, 2 do taken[items[i]] = (taken[items[i]] or 0) + items[i + 1] end
end

local reply = { live, redis.call('STRLEN', KEYS[5]) / 8 }
local capacity = redis.call('HGETALL', KEYS[4])
for i = 1, #capacity, 2 do
  local tier = tonumber(capacity[i])
  reply[#reply + 1] = tier
  reply[#reply + 1] = tonumber(capacity[i + 1])
  reply[#reply + 1] = tonumber(redis.call('HGET', KEYS[2], capacity[i])) or 0
  reply[#reply + 1] = adds_up and (taken[tier] or 0) or -1
end
return reply
