-- Reads the filter of orders that were ever admitted.
--
-- KEYS    1 sale  2 seen
-- ARGV    1 epoch the caller believes in
-- returns { 'LOST' }, or { the filter's bits, how many there may be }
-- keeps   avail = capacity - sum of orders: it touches neither

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'seen_bits')
if sale[1] ~= ARGV[1] then return { 'LOST' } end
return { redis.call('GET', KEYS[2]) or '', tonumber(sale[2]) }
