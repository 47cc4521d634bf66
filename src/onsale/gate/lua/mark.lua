-- Remembers orders that were admitted under an earlier epoch and have ended since, so that their
-- buyers are not taken for strangers.
--
-- KEYS    1 sale  2 seen
-- ARGV    1 epoch in force or being loaded, then order ids (16 bytes each)
-- returns { 'LOST' }, or { orders ever admitted }
-- keeps   avail = capacity - sum of orders: it touches neither

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'loading')
if sale[1] ~= ARGV[1] and sale[2] ~= ARGV[1] then return { 'LOST' } end

local seen = {}
for i = 2, #ARGV do seen[#seen + 1] = string.sub(ARGV[i], 1, 8) end
return { redis.call('APPEND', KEYS[2], table.concat(seen)) / 8 }
