-- Decides a batch of orders in arrival order, each with all of its items or none.
--
-- KEYS    1 sale  2 avail  3 orders  4 buyers  5 seen
-- ARGV    1 epoch the caller believes in
--         then two per order: its id (16 bytes) and its body (fingerprint 8 bytes, buyer 8 bytes,
--         then per item one byte tier number and one byte quantity)
-- returns { 'LOST' } when the gate was loaded under another epoch, else
--         { outcomes, tier number, units left, tier number, units left, … }: outcomes has one
--         digit per order (see Outcome), and the tiers are those that the batch asked for
-- keeps   avail = capacity - sum of orders, and avail never falls below zero here

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'switch', 'opens_ms', 'closes_ms', 'limit', 'seen_bits')
if sale[1] ~= ARGV[1] then return { 'LOST' } end

local SEEN, SEEN_WITH_OTHER_BODY, SOLD_OUT, BUYER_LIMIT = '1', '2', '3', '4'
local NOT_OPEN, PAUSED, CLOSED, ADMITTED = '5', '6', '7', '0'

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, seen_bits = tonumber(sale[5]), tonumber(sale[6])
local stamp = struct.pack('>I4', tonumber(time[1]))

local refusal
if sale[2] == 'closed' or now_ms >= tonumber(sale[4]) then refusal = CLOSED
elseif sale[2] == 'paused' then refusal = PAUSED
elseif now_ms < tonumber(sale[3]) then refusal = NOT_OPEN end

local left = {}
local function units_left(tier)
  local units = left[tier]
  if not units then
    units = tonumber(redis.call('HGET', KEYS[2], tier)) or 0
    left[tier] = units
  end
  return units
end

-- One bit in each half of the order's filter; ids are hashes, so their bytes serve as the hash.
local function mark_seen(id)
  local a, b, c, d, e, f, g, h = string.byte(id, 1, 8)
  redis.call('SETBIT', KEYS[5], (((a * 256 + b) * 256 + c) * 256 + d) % seen_bits, 1)
  redis.call('SETBIT', KEYS[5], (((e * 256 + f) * 256 + g) * 256 + h) % seen_bits, 1)
end

local function decide(id, body)
  local taken = redis.call('HGET', KEYS[3], id)
  if taken then
    return string.sub(taken, 5, 12) == string.sub(body, 1, 8) and SEEN or SEEN_WITH_OTHER_BODY
  end
  if refusal then return refusal end

  local items, buyer, units = { string.byte(body, 17, -1) }, string.sub(body, 9, 16), 0
  for i = 2, #items, 2 do units = units + items[i] end
  if limit > 0 then
    local before = tonumber(redis.call('HGET', KEYS[4], buyer)) or 0
    if before + units > limit then return BUYER_LIMIT end
  end
  for i = 1, #items, 2 do
    if units_left(items[i]) < items[i + 1] then return SOLD_OUT end
  end

  for i = 1, #items, 2 do left[items[i]] = left[items[i]] - items[i + 1] end
  if limit > 0 then redis.call('HINCRBY', KEYS[4], buyer, units) end
  redis.call('HSET', KEYS[3], id, stamp .. body)
  mark_seen(id)
  return ADMITTED
end

local outcomes, admitted = {}, 0
for i = 2, #ARGV, 2 do
  local outcome = decide(ARGV[i], ARGV[i + 1])
  if outcome == ADMITTED then admitted = admitted + 1 end
  outcomes[#outcomes + 1] = outcome
end

local reply = { table.concat(outcomes) }
for tier, units in pairs(left) do
  if admitted > 0 then redis.call('HSET', KEYS[2], tier, units) end
  reply[#reply + 1] = tier
  reply[#reply + 1] = units
end
if admitted > 0 then redis.call('HINCRBY', KEYS[1], 'admitted', admitted) end
return reply
