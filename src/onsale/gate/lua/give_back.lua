-- Returns the stock of orders that are no longer live: each id once, whoever asks how often.
--
-- KEYS    1 sale  2 avail  3 orders  4 buyers
-- ARGV    1 epoch, then order ids (16 bytes each)
-- returns { 'LOST' }, or { orders given back, tier number, units left, … } for the tiers that gained
-- keeps   avail = capacity - sum of orders: an id goes and its units come back in one step

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'limit')
if sale[1] ~= ARGV[1] then return { 'LOST' } end
local limit = tonumber(sale[2])

local gained, given_back = {}, 0
for i = 2, #ARGV do
  local taken = redis.call('HGET', KEYS[3], ARGV[i])
  if taken then
    local items, units = { string.byte(taken, 21, -1) }, 0
    for j = 1, #items, 2 do
      gained[items[j]] = (gained[items[j]] or 0) + items[j + 1]
      units = units + items[j + 1]
    end
    if limit > 0 then
      local buyer = string.sub(taken, 13, 20)
      if redis.call('HINCRBY', KEYS[4], buyer, -units) <= 0 then redis.call('HDEL', KEYS[4], buyer) end
    end
    redis.call('HDEL', KEYS[3], ARGV[i])
    given_back = given_back + 1
  end
end

local reply = { given_back }
for tier, units in pairs(gained) do
  reply[#reply + 1] = tier
  reply[#reply + 1] = redis.call('HINCRBY', KEYS[2], tier, units)
end
return reply
