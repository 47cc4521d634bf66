-- Ends the loading of an event's gate: from here on its epoch admits.
--
-- KEYS    1 sale
-- ARGV    1 epoch that was loaded
-- returns { 'LOST' } when another loading has begun since, else { 1 }
-- keeps   the epoch is written last, so a half-loaded gate admits nobody

local sale = redis.call('HMGET', KEYS[1], 'epoch', 'loading')
if sale[1] == ARGV[1] then return { 1 } end
if sale[2] ~= ARGV[1] then return { 'LOST' } end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
redis.call('HDEL', KEYS[1], 'loading')
return { 1 }
