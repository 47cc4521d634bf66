-- Takes stock for live orders of the ledger that the gate lacks, whatever is left of it.
--
-- KEYS    1 sale  2 avail  3 orders  4 buyers  5 seen
-- ARGV    1 epoch in force or being loaded; then two per order: its id and its body as in admit.lua
-- returns { 'LOST' }, or { orders adopted }
-- keeps   avail = capacity - sum of orders; avail below zero says how much was admitted too much

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'loading', 'limit', 'seen_bits')
if sale[1] ~= ARGV[1] and sale[2] ~= ARGV[1] then return { 'LOST' } end

local limit, seen_bits = tonumber(sale[3]), tonumber(sale[4])
local stamp = struct.pack('>I4', tonumber(redis.call('TIME')[1]))

local taken, adopted = {}, 0
for i = 2, #ARGV, 2 do
  local id, body = ARGV[i], ARGV[i + 1]
  if redis.call('HSETNX', KEYS[3], id, stamp .. body) == 1 then
    local items, units = { string.byte(body, 17, -1) }, 0
    for j = 1, #items, 2 do
      taken[items[j]] = (taken[items[j]] or 0) + items[j + 1]
      units = units + items[j + 1]
    end
    if limit > 0 then redis.call('HINCRBY', KEYS[4], string.sub(body, 9, 16), units) end
    local a, b, c, d, e, f, g, h = string.byte(id, 1, 8)
    redis.call('SETBIT', KEYS[5], (((a * 256 + b) * 256 + c) * 256 + d) % seen_bits, 1)
    redis.call('SETBIT', KEYS[5], (((e * 256 + f) * 256 + g) * 256 + h) % seen_bits, 1)
    adopted = adopted + 1
  end
end

for tier, units in pairs(taken) do redis.call('HINCRBY', KEYS[2], tier, -units) end
if adopted > 0 then redis.call('HINCRBY', KEYS[1], 'admitted', adopted) end
return { adopted }
