-- Remembers orders that were admitted under an earlier epoch and have ended since, so that their
-- buyers are not taken for strangers.
--
-- KEYS    1 sale  2 seen
-- ARGV    1 epoch in force or being loaded, then order ids (16 bytes each)
-- returns { 'LOST' }, or { orders ever admitted }
-- keeps   avail = capacity - sum of orders: it touches neither

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'loading', 'seen_bits')
if sale[1] ~= ARGV[1] and sale[2] ~= ARGV[1] then return { 'LOST' } end

local seen_bits = tonumber(sale[3])
-- Eight arguments each: as many as fit on Lua's stack with room to spare.
local AT_ONCE = 500
for first = 2, #ARGV, AT_ONCE do
  local bits = {}
  for i = first, math.min(first + AT_ONCE - 1, #ARGV) do
    local n, one, other = #bits, struct.unpack('>I4I4', ARGV[i])
    bits[n + 1], bits[n + 2], bits[n + 3], bits[n + 4] = 'SET', 'u1', one % seen_bits, 1
    bits[n + 5], bits[n + 6], bits[n + 7], bits[n + 8] = 'SET', 'u1', other % seen_bits, 1
  end
  redis.call('BITFIELD', KEYS[2], unpack(bits))
end
return { redis.call('HINCRBY', KEYS[1], 'admitted', #ARGV - 1) }
