-- Says how the sales of one event or several stand, changing nothing.
--
-- KEYS    for each event: 1 sale  2 avail  3 seen
-- ARGV    for each event its epoch
-- returns for each event { 'LOST' }, or { server time in ms, switch, orders ever admitted,
--           tier number, units left, … }
-- keeps   nothing

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function availability(k, epoch)
  local sale = redis.call('HMGET', KEYS[k + 1], 'epoch', 'switch')
  if sale[1] ~= epoch then return { 'LOST' } end
  local reply = { now_ms, sale[2], redis.call('STRLEN', KEYS[k + 3]) / 8 }
  local avail = redis.call('HGETALL', KEYS[k + 2])
  for i = 1, #avail, 2 do
    reply[#reply + 1] = tonumber(avail[i])
    reply[#reply + 1] = tonumber(avail[i + 1])
  end
  return reply
end

local replies = {}
for n = 1, #ARGV do replies[n] = availability(3 * (n - 1), ARGV[n]) end
return replies
