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

-- What is read of the batch is read at its beginning, what it changes is written at its end: one
-- command for each key and not for each order. The commands, in the server and in its log, are most
-- of what an order costs.

-- As many arguments as fit on Lua's stack with room to spare; whole pairs, and whole bits of four.
local AT_ONCE = 4000

local function read(key, fields)
  local found = {}
  for i = 1, #fields, AT_ONCE do
    local last = math.min(i + AT_ONCE - 1, #fields)
    local values = redis.call('HMGET', KEYS[key], unpack(fields, i, last))
    for n = i, last do found[fields[n]] = values[n - i + 1] or nil end
  end
  return found
end

local function write(command, key, arguments)
  for i = 1, #arguments, AT_ONCE do
    local last = math.min(i + AT_ONCE - 1, #arguments)
    redis.call(command, KEYS[key], unpack(arguments, i, last))
  end
end

local ids, buyer_of = {}, {}
for i = 2, #ARGV, 2 do
  ids[i / 2] = ARGV[i]
  buyer_of[i / 2] = string.sub(ARGV[i + 1], 9, 16)
end
local taken = read(3, ids)
local units_of = limit > 0 and read(4, buyer_of) or {}
local left = {}
local orders, buyers, bits = {}, {}, {}

local function units_left(tier)
  if not left[tier] then left[tier] = tonumber(redis.call('HGET', KEYS[2], tier)) or 0 end
  return left[tier]
end

-- One bit for each half of the id's beginning; ids are hashes, so their bytes serve as the hash.
local function bits_of(id)
  local one, other = struct.unpack('>I4I4', id)
  return one % seen_bits, other % seen_bits
end

local function mark_seen(id)
  local n, one, other = #bits, bits_of(id)
  bits[n + 1], bits[n + 2], bits[n + 3], bits[n + 4] = 'SET', 'u1', one, 1
  bits[n + 5], bits[n + 6], bits[n + 7], bits[n + 8] = 'SET', 'u1', other, 1
end

local function is_stranger(id)
  local one, other = bits_of(id)
  return redis.call('GETBIT', KEYS[5], one) == 0 or redis.call('GETBIT', KEYS[5], other) == 0
end

local function decide(id, buyer, body)
  local earlier = taken[id]
  if earlier then
    return string.sub(earlier, 5, 12) == string.sub(body, 1, 8) and SEEN or SEEN_WITH_OTHER_BODY
  end
  if refusal then return refusal end

  local units, lacking = tonumber(units_of[buyer]) or 0, false
  for i = 17, #body, 2 do
    local tier, quantity = string.byte(body, i, i + 1)
    units = units + quantity
    lacking = lacking or units_left(tier) < quantity
  end
  if limit > 0 and units > limit then return BUYER_LIMIT end
  if lacking then return SOLD_OUT end

  for i = 17, #body, 2 do
    local tier, quantity = string.byte(body, i, i + 1)
    left[tier] = left[tier] - quantity
  end
  local n = #orders
  taken[id], units_of[buyer] = stamp .. body, units
  orders[n + 1], orders[n + 2] = id, taken[id]
  if limit > 0 then buyers[n + 1], buyers[n + 2] = buyer, units end
  mark_seen(id)
  return ADMITTED
end

local outcomes, strangers = {}, {}
for n = 1, #ids do
  local outcome = decide(ids[n], buyer_of[n], ARGV[2 * n + 1])
  outcomes[n] = outcome
  strangers[n] = (outcome >= SOLD_OUT and is_stranger(ids[n])) and '1' or '0'
end

local tiers = {}
for tier, units in pairs(left) do
  tiers[#tiers + 1] = tier
  tiers[#tiers + 1] = units
end
if #orders > 0 then
  write('HSET', 3, orders)
  write('HSET', 2, tiers)
  write('HSET', 4, buyers)
  write('BITFIELD', 5, bits)
  ever_admitted = redis.call('HINCRBY', KEYS[1], 'admitted', #orders / 2)
end
return { table.concat(outcomes), table.concat(strangers), ever_admitted, unpack(tiers) }
