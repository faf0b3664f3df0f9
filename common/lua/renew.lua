-- renew: prolong the leases of a supervisor's workers, in Redis's own clock. A lease of 0 ms ends at once.
--
-- KEYS  1     zset  leases: consumer -> ms at which its lease ends
--       2     hash  workers: consumer -> description (msgpack), for `status`
--       3     hash  models: "name:version" -> metadata (msgpack), for clients
-- ARGV  1     lease in ms
--       2     ms for which workers and models are kept after the last renewal
--       3+2i  consumer, its description
-- reply now ms

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First, because it needs no memory: after it even a Redis at its maxmemory lets the rest write, and workers live.
redis.call('PEXPIRE', KEYS[3], ARGV[2])
for i = 3, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return now
