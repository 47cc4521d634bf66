-- wrk's crowd: one request after another, each by another buyer under another key.
--
-- Arguments, after the URL and `--`:
--   1  file of the buyers' tokens, all of one length, with nothing between them
--   2  length of a token in bytes
--   3  file of the paths, likewise
--   4  length of a path in bytes
--   5  body of every request
--   6  index of the first request; a later run goes on where this one ended
--   7  number of keys: request i has buyer i, key i and path i, all modulo this
--   8  arrivals a second; 0 for a closed loop, where a connection sends when it has been answered
--   9  'times_placed' to tell in an open loop how long answers of 201 took from when they were due;
--      to look into every answer costs as much as all the rest, so let few do it
-- Buyers and paths begin anew after the last. Prints one line of JSON at the end.
--
-- Nobody sends in the first LEAD_US: a busy server accepts one connection at a time, and who was
-- not accepted yet would take it for slow. What is printed is about the time after that.
--
-- Arrivals are a Poisson process, due whether or not the server is quick: `delay` gives the next
-- one to whichever connection is free. wrk measures from the sending, so how late each was sent is
-- kept here. A due time is met to a millisecond or two before: wrk's timers have no finer grain.

local LEAD_US = 100000

local ffi = require 'ffi'
ffi.cdef [[
  typedef struct { long s; long ns; } crowd_time_t;
  int clock_gettime(int clock, crowd_time_t *now);
]]
local MONOTONIC = 1
local time = ffi.new('crowd_time_t')

local function now_us()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.s) * 1e6 + tonumber(time.ns) / 1e3
end

local function read_cells(name, cell_bytes)
  local file = assert(io.open(name, 'rb'))
  local text = file:read('*a')
  file:close()
  local count = #text / cell_bytes
  return function(number)
    local from = (number % count) * cell_bytes
    return text:sub(from + 1, from + cell_bytes)
  end
end

local tokens, paths, head, body, index, keys, rate, times_placed
local due_us, last_due_us = {}, nil

-- For `done`, which has a state of its own: when everybody began, and how much later than due each
-- request of an open loop was sent, and how long those that were placed took.
began_us, late_us, placed_us = 0, {}, {}

local threads = {}

function setup(thread) threads[#threads + 1] = thread end

-- The service answers with the request's own id, which is when it was due.
local function time_placed(status, headers)
  if status == 201 then placed_us[#placed_us + 1] = now_us() - tonumber(headers['x-request-id']) end
end

function init(args)
  tokens = read_cells(args[1], tonumber(args[2]))
  paths = read_cells(args[3], tonumber(args[4]))
  body, index, keys, rate = args[5], tonumber(args[6]), tonumber(args[7]), tonumber(args[8])
  head = table.concat({
    ' HTTP/1.1',
    'Host: ' .. wrk.headers['Host'],
    'Content-Type: application/json',
    'Content-Length: ' .. #body,
    'Authorization: Bearer ',
  }, '\r\n')
  math.randomseed(index)
  times_placed = args[9] == 'times_placed'
  if times_placed then response = time_placed end
end

function delay()
  local now = now_us()
  if began_us == 0 then began_us = now + LEAD_US end
  if rate == 0 then return math.max(0, began_us - now) / 1e3 end
  last_due_us = (last_due_us or began_us) - math.log(1 - math.random()) / rate * 1e6
  due_us[#due_us + 1] = last_due_us
  return math.max(0, last_due_us - now) / 1e3
end

function request()
  -- Who is sent first was due first, to the millisecond. wrk asks once before anybody is due, to
  -- see what a request looks like.
  local due = due_us[#late_us + 1]
  if due then late_us[#late_us + 1] = math.max(0, now_us() - due) end
  local key = index % keys
  index = index + 1
  local id = times_placed and string.format('\r\nX-Request-Id: %.0f', due or 0) or ''
  return 'POST ' .. paths(key) .. head .. tokens(key)
    .. '\r\nIdempotency-Key: press-' .. key .. id .. '\r\n\r\n' .. body
end

local function percentile(values, share)
  table.sort(values)
  return values[math.ceil(#values * share)] or 0
end

function done(summary, latency)
  local errors, thread = summary.errors, threads[1]
  local placed = thread:get('placed_us')
  io.write(string.format(
    '{"requests":%.0f,"duration_us":%.0f,"p50_us":%.0f,"p99_us":%.0f,"late_p99_us":%.0f'
      .. ',"error_answers":%.0f,"failures":%.0f'
      .. ',"placed_p50_us":%.0f,"placed_p99_us":%.0f}\n',
    summary.requests, now_us() - thread:get('began_us'),
    latency:percentile(50), latency:percentile(99), percentile(thread:get('late_us'), 0.99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    percentile(placed, 0.5), percentile(placed, 0.99)))
end
