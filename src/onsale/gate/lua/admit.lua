-- Decides a batch of orders in arrival order, each with all of its items or none.
--
-- KEYS    1 sale  2 avail  3 orders  4 buyers  5 seen
-- ARGV    1 epoch the caller believes in
--         then two per order: its id (16 bytes) and its body (fingerprint 8 bytes, buyer 8 bytes,
--         then per item one byte tier number and one byte quantity)
-- returns { 'LOST' } when the gate was loaded under another epoch, else
--         { outcomes, strangers, orders ever admitted, tier number, units left, … }: outcomes has
--         one digit per order (see Outcome); strangers has a 1 for each that surely never was
--         admitted before; the tiers are those that the batch asked for
-- keeps   avail = capacity - sum of orders, and avail never falls below zero here

local sale = redis.call('HMGET', KEYS[1],
  'epoch', 'switch', 'opens_ms', 'closes_ms', 'limit', 'seen_bits', 'admitted')
if sale[1] ~= ARGV[1] then return { 'LOST' } end

local SEEN, SEEN_WITH_OTHER_BODY, SOLD_OUT, BUYER_LIMIT = '1', '2', '3', '4'
local NOT_OPEN, PAUSED, CLOSED, ADMITTED = '5', '6', '7', '0'

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, seen_bits, ever_admitted = tonumber(sale[5]), tonumber(sale[6]), tonumber(sale[7])
local stamp = struct.pack('>I4', tonumber(time[1]))

local refusal
if sale[2] == 'closed' or now_ms >= tonumber(sale[4]) then refusal = CLOSED
elseif sale[2] == 'paused' then refusal = PAUSED
elseif now_ms < tonumber(sale[3]) then refusal = NOT_OPEN end

-- What the batch has read and changed so far. It is written at the end, a command for each key and
-- not for each order: the commands, in the server and in its log, are most of what an order costs.
local left, units_of, taken = {}, {}, {}
local orders, buyers, bits = {}, {}, {}

local function units_left(tier)
  if not left[tier] then left[tier] = tonumber(redis.call('HGET', KEYS[2], tier)) or 0 end
  return left[tier]
end

local function units_of_buyer(buyer)
  if not units_of[buyer] then units_of[buyer] = tonumber(redis.call('HGET', KEYS[4], buyer)) or 0 end
  return units_of[buyer]
end

-- One bit for each half of the id's beginning; ids are hashes, so their bytes serve as the hash.
local function bits_of(id)
  local a, b, c, d, e, f, g, h = string.byte(id, 1, 8)
  return (((a * 256 + b) * 256 + c) * 256 + d) % seen_bits,
    (((e * 256 + f) * 256 + g) * 256 + h) % seen_bits
end

local function mark_seen(id)
  for _, bit in ipairs({ bits_of(id) }) do
    local n = #bits
    bits[n + 1], bits[n + 2], bits[n + 3], bits[n + 4] = 'SET', 'u1', bit, 1
  end
end

local function is_stranger(id)
  local one, other = bits_of(id)
  return redis.call('GETBIT', KEYS[5], one) == 0 or redis.call('GETBIT', KEYS[5], other) == 0
end

local function decide(id, body)
  local earlier = taken[id] or redis.call('HGET', KEYS[3], id)
  if earlier then
    return string.sub(earlier, 5, 12) == string.sub(body, 1, 8) and SEEN or SEEN_WITH_OTHER_BODY
  end
  if refusal then return refusal end

  local items, buyer, units = { string.byte(body, 17, -1) }, string.sub(body, 9, 16), 0
  for i = 2, #items, 2 do units = units + items[i] end
  if limit > 0 and units_of_buyer(buyer) + units > limit then return BUYER_LIMIT end
  for i = 1, #items, 2 do
    if units_left(items[i]) < items[i + 1] then return SOLD_OUT end
  end

  for i = 1, #items, 2 do left[items[i]] = left[items[i]] - items[i + 1] end
  if limit > 0 then
    units_of[buyer] = units_of[buyer] + units
    buyers[#buyers + 1] = buyer
    buyers[#buyers + 1] = units_of[buyer]
  end
  taken[id] = stamp .. body
  orders[#orders + 1] = id
  orders[#orders + 1] = taken[id]
  mark_seen(id)
  return ADMITTED
end

local outcomes, strangers = {}, {}
for i = 2, #ARGV, 2 do
  local n, outcome = #outcomes + 1, decide(ARGV[i], ARGV[i + 1])
  outcomes[n] = outcome
  strangers[n] = (outcome >= SOLD_OUT and is_stranger(ARGV[i])) and '1' or '0'
end

-- As many arguments as fit on Lua's stack with room to spare; whole pairs, and whole bits of four.
local AT_ONCE = 4000
local function write(command, key, arguments)
  for i = 1, #arguments, AT_ONCE do
    redis.call(command, key, unpack(arguments, i, math.min(i + AT_ONCE - 1, #arguments)))
  end
end

local tiers = {}
for tier, units in pairs(left) do
  tiers[#tiers + 1] = tier
  tiers[#tiers + 1] = units
end
if #orders > 0 then
  write('HSET', KEYS[3], orders)
  write('HSET', KEYS[2], tiers)
  write('HSET', KEYS[4], buyers)
  write('BITFIELD', KEYS[5], bits)
  ever_admitted = redis.call('HINCRBY', KEYS[1], 'admitted', #orders / 2)
end
return { table.concat(outcomes), table.concat(strangers), ever_admitted, unpack(tiers) }
