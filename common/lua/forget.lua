-- forget: remove all that a pool keeps in Redis, unless a worker lives in it, or work would be lost.
--
-- KEYS  1-15  stream  high, normal, low, and then these three in each bulk lane
--       16    stream  dead letters
--       17    zset    leases: consumer -> ms at which its lease ends
--       18-   any     whatever else the pool keeps
-- ARGV  1     1: unfinished requests and dead letters go, too
-- reply {1 where it is forgotten, else 0; live workers, unfinished requests, dead letters}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = #redis.call('ZRANGE', KEYS[17], '(' .. string.format('%d', now), '+inf', 'BYSCORE')
local unfinished = 0
for i = 1, 15 do
  unfinished = unfinished + redis.call('XLEN', KEYS[i])
end
local letters = redis.call('XLEN', KEYS[16])
if live > 0 or (unfinished + letters > 0 and ARGV[1] ~= '1') then
  return {0, live, unfinished, letters}
end
redis.call('DEL', unpack(KEYS))
return {1, live, unfinished, letters}
