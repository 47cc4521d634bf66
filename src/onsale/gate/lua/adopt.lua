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

local taken, seen = {}, {}
for i = 2, #ARGV, 2 do
  local id, body = ARGV[i], ARGV[i + 1]
  if redis.call('HSETNX', KEYS[3], id, stamp .. body) == 1 then
    local items, units = { string.byte(body, 17, -1) }, 0
    for j = 1, #items, 2 do
      taken[items[j]] = (taken[items[j]] or 0) + items[j + 1]
      units = units + items[j + 1]
    end
    if limit > 0 then redis.call('HINCRBY', KEYS[4], string.sub(body, 9, 16), units) end
    seen[#seen + 1] = string.sub(id, 1, 8)
  end
end

for tier, units in pairs(taken) do redis.call('HINCRBY', KEYS[2], tier, -units) end
if #seen > 0 then redis.call('APPEND', KEYS[5], table.concat(seen)) end
return { #seen }
