-- wrk's crowd: one order request after another, each by another buyer under another key.
--
-- Arguments, after the URL and `--`:
--   1  file of the buyers' tokens, all of one length, with nothing between them
--   2  length of a token in bytes
--   3  index of the first request; a later run goes on where this one ended
--   4  number of keys: request i is made by buyer i and under key i, both modulo this
-- Buyers repeat after as many requests as there are tokens. Prints one line of JSON at the end.

local BODY = '{"items":[{"tier_id":"ga","quantity":1}]}'

local tokens, token_bytes, buyers, index, keys, head

function init(args)
  local file = assert(io.open(args[1], 'rb'))
  tokens = file:read('*a')
  file:close()
  token_bytes, index, keys = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  buyers = #tokens / token_bytes
  head = table.concat({
    'POST ' .. wrk.path .. ' HTTP/1.1',
    'Host: ' .. wrk.headers['Host'],
    'Content-Type: application/json',
    'Content-Length: ' .. #BODY,
    'Authorization: Bearer ',
  }, '\r\n')
end

function request()
  local key = index % keys
  local from = (key % buyers) * token_bytes
  index = index + 1
  return head .. tokens:sub(from + 1, from + token_bytes)
    .. '\r\nIdempotency-Key: press-' .. key .. '\r\n\r\n' .. BODY
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%.0f,"duration_us":%.0f,"p50_us":%.0f,"p99_us":%.0f,"error_answers":%.0f,"failures":%.0f}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
