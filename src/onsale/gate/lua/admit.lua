-- Decides batches of orders of one event or several, each in arrival order, each order with all of its
-- items or none.
--
-- KEYS    for each event: 1 sale  2 avail  3 orders  4 buyers  5 seen
-- ARGV    for each event: how many arguments follow for it; the epoch that the caller believes in;
--         then two per order: its id (16 bytes) and its body (fingerprint 8 bytes, buyer 8 bytes, then
--         per item one byte tier number and one byte quantity)
-- returns for each event { 'LOST' } when its gate was loaded under another epoch, else
--         { outcomes, orders ever admitted, tier number, units left, … }: outcomes has one digit per
--         order (see Outcome); the tiers are those that the batch asked for
-- keeps   avail = capacity - sum of orders, and avail never falls below zero here

local SEEN, SEEN_WITH_OTHER_BODY, SOLD_OUT, BUYER_LIMIT = '1', '2', '3', '4'
local NOT_OPEN, PAUSED, CLOSED, ADMITTED = '5', '6', '7', '0'

local sub, byte = string.sub, string.byte
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = struct.pack('>I4', tonumber(time[1]))

-- What is read of a batch is read at its beginning, what it changes is written at its end: one
-- command for each key and not for each order. The commands, in the server and in its log, are most
-- of what an order costs.

-- As many arguments as fit on Lua's stack with room to spare; whole pairs.
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

-- One event's batch: its keys follow KEYS[k], its epoch and orders are ARGV[first] to ARGV[last].
local function admit(k, first, last)
  local sale = redis.call('HMGET', KEYS[k + 1],
    'epoch', 'switch', 'opens_ms', 'closes_ms', 'limit')
  if sale[1] ~= ARGV[first] then return { 'LOST' } end

  local refusal
  if sale[2] == 'closed' or now_ms >= tonumber(sale[4]) then refusal = CLOSED
  elseif sale[2] == 'paused' then refusal = PAUSED
  elseif now_ms < tonumber(sale[3]) then refusal = NOT_OPEN end

  local limit = tonumber(sale[5])
  local limited = limit > 0
  local ids, bodies, buyer_of = {}, {}, {}
  for i = first + 1, last, 2 do
    local n = #ids + 1
    ids[n], bodies[n] = ARGV[i], ARGV[i + 1]
    if limited then buyer_of[n] = sub(bodies[n], 9, 16) end
  end
  local taken = read(k + 3, ids)
  local units_of = limited and read(k + 4, buyer_of) or {}
  local left = {}
  local orders, buyers, seen = {}, {}, {}

  local function units_left(tier)
    if not left[tier] then left[tier] = tonumber(redis.call('HGET', KEYS[k + 2], tier)) or 0 end
    return left[tier]
  end

  local function decide(id, buyer, body)
    local earlier = taken[id]
    if earlier then
      return sub(earlier, 5, 12) == sub(body, 1, 8) and SEEN or SEEN_WITH_OTHER_BODY
    end
    if refusal then return refusal end

    local units, lacking = limited and tonumber(units_of[buyer]) or 0, false
    for i = 17, #body, 2 do
      local tier, quantity = byte(body, i, i + 1)
      units = units + quantity
      lacking = lacking or units_left(tier) < quantity
    end
    if limited and units > limit then return BUYER_LIMIT end
    if lacking then return SOLD_OUT end

    for i = 17, #body, 2 do
      local tier, quantity = byte(body, i, i + 1)
      left[tier] = left[tier] - quantity
    end
    local n = #orders
    local stored = stamp .. body
    taken[id] = stored
    orders[n + 1], orders[n + 2] = id, stored
    if limited then
      units_of[buyer] = units
      buyers[n + 1], buyers[n + 2] = buyer, units
    end
    seen[#seen + 1] = sub(id, 1, 8)
    return ADMITTED
  end

  local outcomes = {}
  for n = 1, #ids do outcomes[n] = decide(ids[n], buyer_of[n], bodies[n]) end

  local tiers = {}
  for tier, units in pairs(left) do
    tiers[#tiers + 1] = tier
    tiers[#tiers + 1] = units
  end
  local seen_bytes
  if #orders == 0 then
    seen_bytes = redis.call('STRLEN', KEYS[k + 5])
  else
    write('HSET', k + 3, orders)
    write('HSET', k + 2, tiers)
    write('HSET', k + 4, buyers)
    seen_bytes = redis.call('APPEND', KEYS[k + 5], table.concat(seen))
  end
  return { table.concat(outcomes), seen_bytes / 8, unpack(tiers) }
end

local replies, at = {}, 1
for k = 0, #KEYS - 1, 5 do
  local last = at + tonumber(ARGV[at])
  replies[#replies + 1] = admit(k, at + 1, last)
  at = last + 1
end
return replies
