-- reclaim: give a live worker what consumers without a live lease left unfinished, and prune those consumers.
-- Each claim raises the entry's delivery count by one; nothing else does, so it counts crashes.
--
-- KEYS  1-15  stream  high, normal, low, and then these three in each bulk lane
--       16    zset    leases: consumer -> ms at which its lease ends
--       17    hash    workers: consumer -> description
-- ARGV  1     group
--       2     consumer that takes over
--       3     most entries to hand over: bounds the cost, whatever the pending list's length
--       4     ms for which an ended lease is remembered
-- reply {now ms, {{stream 1-15, entry id, {field, value, ...}, deliveries}, ...}, {consumer, held, ...}}
--       with the count of deliveries before this one, and what each consumer that gave one held until now

local STREAMS, LEASES, WORKERS = 15, KEYS[16], KEYS[17]
local group, me, room = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found, holds, held, givers = {}, {}, {}, {}

local function live(consumer)
  local lease = redis.call('ZSCORE', LEASES, consumer)
  return lease and tonumber(lease) > now
end

-- Redis 6.2 answers nil for a pending entry that an operator deleted from the stream; 7.0 drops it itself.
local function claim(stream, consumer)
  local pending = redis.call('XPENDING', KEYS[stream], group, '-', '+', room, consumer)
  local ids, deliveries = {}, {}
  for i = 1, #pending do
    ids[i] = pending[i][1]
    deliveries[pending[i][1]] = pending[i][4]
  end
  local claimed = redis.call('XCLAIM', KEYS[stream], group, me, 0, unpack(ids))
  for i = 1, #claimed do
    local entry = claimed[i]
    if entry and entry[2] then
      found[#found + 1] = {stream, entry[1], entry[2], deliveries[entry[1]]}
      deliveries[entry[1]] = nil
    end
  end
  for id in pairs(deliveries) do
    redis.call('XACK', KEYS[stream], group, id)
  end
  room = room - #ids
  return #ids
end

if not live(me) then
  return {now, found, {}}
end
-- A lost group raises NOGROUP here, while nothing has been claimed that the error would lose.
for stream = 1, STREAMS do
  redis.call('XPENDING', KEYS[stream], group, 0, 0, 1)
end
for stream = 1, STREAMS do
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[stream], group)) do
    local consumer, pending = info[2], info[4]
    if not live(consumer) then
      held[consumer] = (held[consumer] or 0) + pending
      if pending > 0 and room > 0 then
        givers[consumer] = true
        pending = pending - claim(stream, consumer)
      end
      if pending > 0 then
        holds[consumer] = true
      else
        -- pcall: at its maxmemory Redis may refuse to prune; what was claimed must reach the worker all the same.
        redis.pcall('XGROUP', 'DELCONSUMER', KEYS[stream], group, consumer)
      end
    end
  end
end
-- A lease is remembered for longer than a blocking read lasts: what Redis handed to a connection that was
-- just dying is then found by the next reclaim instead of lying there unseen.
for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now - ARGV[4], 'LIMIT', 0, 1000)) do
  if not holds[consumer] then
    redis.call('ZREM', LEASES, consumer)
    redis.call('HDEL', WORKERS, consumer)
  end
end
local given = {}
for consumer in pairs(givers) do
  given[#given + 1] = consumer
  given[#given + 1] = held[consumer]
end
return {now, found, given}
