-- Says how the sale stands, changing nothing.
--
-- KEYS    1 sale  2 avail  3 seen
-- ARGV    1 epoch
-- returns { 'LOST' }, or { server time in ms, switch, orders ever admitted,
--           tier number, units left, … }
-- keeps   nothing

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'switch')
if sale[1] ~= ARGV[1] then return { 'LOST' } end

local time = redis.call('TIME')
local reply = { time[1] * 1000 + math.floor(time[2] / 1000), sale[2],
  redis.call('STRLEN', KEYS[3]) / 8 }
local avail = redis.call('HGETALL', KEYS[2])
for i = 1, #avail, 2 do
  reply[#reply + 1] = tonumber(avail[i])
  reply[#reply + 1] = tonumber(avail[i + 1])
end
return reply
