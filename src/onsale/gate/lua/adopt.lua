-- Takes stock for live orders of the ledger that the gate lacks, whatever is left of it.
--
-- KEYS    1 sale  2 avail  3 orders  4 buyers  5 seen
-- ARGV    1 epoch in force or being loaded; then two per order: its id and its body as in admit.lua
-- returns { 'LOST' }, or { orders adopted }
-- keeps   avail = capacity - sum of orders; avail below zero says how much was admitted too much

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'loading', 'limit')
if sale[1] ~= ARGV[1] and sale[2] ~= ARGV[1] then return { 'LOST' } end

local limit = tonumber(sale[3])
local stamp = struct.pack('>I4', tonumber(redis.call('TIME')[1]))

-- One command for many orders, as in admit.lua: as many as fit on Lua's stack with room to spare.
local AT_ONCE = 2000

local function add_to_buyers(units_of)
  local buyers, changed = {}, {}
  for buyer in pairs(units_of) do buyers[#buyers + 1] = buyer end
  for n, units in ipairs(redis.call('HMGET', KEYS[4], unpack(buyers))) do
    changed[2 * n - 1], changed[2 * n] = buyers[n], (tonumber(units) or 0) + units_of[buyers[n]]
  end
  redis.call('HSET', KEYS[4], unpack(changed))
end

local taken, adopted = {}, 0
for first = 2, #ARGV, 2 * AT_ONCE do
  local ids, body_of = {}, {}
  for i = first, math.min(first + 2 * AT_ONCE, #ARGV) - 1, 2 do
    if not body_of[ARGV[i]] then
      ids[#ids + 1], body_of[ARGV[i]] = ARGV[i], ARGV[i + 1]
    end
  end
  local orders, seen, units_of = {}, {}, {}
  for n, here in ipairs(redis.call('HMGET', KEYS[3], unpack(ids))) do
    if not here then
      local id, body = ids[n], body_of[ids[n]]
      local items, units = { string.byte(body, 17, -1) }, 0
      for j = 1, #items, 2 do
        taken[items[j]] = (taken[items[j]] or 0) + items[j + 1]
        units = units + items[j + 1]
      end
      local buyer = string.sub(body, 9, 16)
      units_of[buyer] = (units_of[buyer] or 0) + units
      orders[#orders + 1], orders[#orders + 2] = id, stamp .. body
      seen[#seen + 1] = string.sub(id, 1, 8)
    end
  end
  if #seen > 0 then
    redis.call('HSET', KEYS[3], unpack(orders))
    if limit > 0 then add_to_buyers(units_of) end
    redis.call('APPEND', KEYS[5], table.concat(seen))
    adopted = adopted + #seen
  end
end

for tier, units in pairs(taken) do redis.call('HINCRBY', KEYS[2], tier, -units) end
return { adopted }
