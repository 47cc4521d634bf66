-- Lets requests pass, or tells how long each has to wait, by the generic cell rate algorithm.
--
-- A lane is a rate and a burst, for example "per buyer". A bucket is one buyer's in that lane: a key
-- with the time, in microseconds of this server's clock, at which it will be full again. A request
-- has one bucket in each lane and passes when all of them have room; else it takes from none.
--
-- KEYS    for each request one bucket in each lane, in the order of the lanes
-- ARGV    number of lanes, then for each: microseconds that one request takes to come back, burst
-- returns for each request: microseconds to wait (0: it passed), then for each lane the
--         microseconds until its bucket is full again
-- keeps   avail = capacity - sum of orders: it touches neither

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lanes = tonumber(ARGV[1])

local reply = {}
for first = 1, #KEYS, lanes do
  local wait, full_at = 0, {}
  for lane = 1, lanes do
    local interval, burst = tonumber(ARGV[lane * 2]), tonumber(ARGV[lane * 2 + 1])
    full_at[lane] = math.max(tonumber(redis.call('GET', KEYS[first + lane - 1]) or now), now)
    wait = math.max(wait, full_at[lane] + interval - interval * burst - now)
  end
  reply[#reply + 1] = wait
  for lane = 1, lanes do
    if wait == 0 then
      full_at[lane] = full_at[lane] + tonumber(ARGV[lane * 2])
      local keep_ms = math.ceil((full_at[lane] - now) / 1000)
      redis.call('SET', KEYS[first + lane - 1], string.format('%.0f', full_at[lane]), 'PX', keep_ms)
    end
    reply[#reply + 1] = full_at[lane] - now
  end
end
return reply
