-- release: hand entries back unfinished, without raising their delivery counts (a drain is no crash).
-- They go to a consumer that never has a live lease, so the next reclaim of any worker takes them.
--
-- KEYS  1-15  stream  high, normal, low, and then these three in each bulk lane
--       16    zset    leases: consumer -> ms at which its lease ends
-- ARGV  1     group
--       2     consumer that hands back
--       3     the consumer "released"
--       4+2i  stream of entry i (1-15), its id
-- reply number of entries handed back

local group, me, released = ARGV[1], ARGV[2], ARGV[3]
local count = 0
for i = 4, #ARGV, 2 do
  local stream, id = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  local pending = redis.call('XPENDING', stream, group, id, id, 1, me)[1]
  -- Whoever reclaimed it in the meantime keeps it.
  if pending then
    redis.call('XCLAIM', stream, group, released, 0, id, 'RETRYCOUNT', pending[4] - 1, 'JUSTID')
    count = count + 1
  end
end
if count > 0 then
  redis.call('ZADD', KEYS[16], 0, released)
end
return count
