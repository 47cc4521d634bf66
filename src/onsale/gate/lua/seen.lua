-- Reads on in the log of orders that were ever admitted.
--
-- KEYS    1 sale  2 seen
-- ARGV    1 epoch the caller believes in  2 orders that are known already  3 orders to read at most
-- returns { 'LOST' }, or { the first 8 bytes of each order's id }
-- keeps   avail = capacity - sum of orders: it touches neither

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return { 'LOST' } end
local from = 8 * tonumber(ARGV[2])
return { redis.call('GETRANGE', KEYS[2], from, from + 8 * tonumber(ARGV[3]) - 1) }
