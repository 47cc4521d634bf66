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
for i = 2, #ARGV do
  local a, b, c, d, e, f, g, h = string.byte(ARGV[i], 1, 8)
  redis.call('SETBIT', KEYS[2], (((a * 256 + b) * 256 + c) * 256 + d) % seen_bits, 1)
  redis.call('SETBIT', KEYS[2], (((e * 256 + f) * 256 + g) * 256 + h) % seen_bits, 1)
end
return { redis.call('HINCRBY', KEYS[1], 'admitted', #ARGV - 1) }
