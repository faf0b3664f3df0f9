-- take: hand entries to one worker, a share of each priority, without waiting.
-- A worker whose lease has run out gets nothing: others are already taking over what it held.
--
-- KEYS  1-3   stream  high, normal, low
--       4     zset    leases: consumer -> ms at which its lease ends
--       5     set     cancelled: places "<stream 1-3>:<entry id>" that nobody waits for
-- ARGV  1     group
--       2     consumer
--       3-5   the shares of high, normal and low; what one leaves over goes to the others, high first
-- reply {now ms, 1 if the lease is live else 0, 1 if some lease has run out else 0,
--        high entries, normal entries, low entries, cancelled places among all that the worker holds}
--       where an entry is {id, {field, value, ...}}

local group, me = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[4], me)
local live = lease and tonumber(lease) > now
local lapsed = #redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 1)

local entries = {{}, {}, {}}

local function read(stream, count)
  local streams = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', KEYS[stream], '>')
  if not streams then
    return 0
  end
  local found, into = streams[1][2], entries[stream]
  for i = 1, #found do
    into[#into + 1] = found[i]
  end
  return #found
end

local function read_shares()
  local spare, drained = 0, {}
  for stream = 1, 3 do
    local share = tonumber(ARGV[2 + stream])
    if share > 0 then
      local got = read(stream, share)
      spare = spare + share - got
      drained[stream] = got < share
    end
  end
  for stream = 1, 3 do
    if spare > 0 and not drained[stream] then
      spare = spare - read(stream, spare)
    end
  end
end

-- Only the marks of what this worker holds: the cost is bounded by that, however many were ever cancelled.
local function cancelled_of_mine()
  local found = {}
  for stream = 1, 3 do
    local places = {}
    for i, pending in ipairs(redis.call('XPENDING', KEYS[stream], group, '-', '+', 1000, me)) do
      places[i] = stream .. ':' .. pending[1]
    end
    if #places > 0 then
      for i, marked in ipairs(redis.call('SMISMEMBER', KEYS[5], unpack(places))) do
        if marked == 1 then
          found[#found + 1] = places[i]
        end
      end
    end
  end
  return found
end

local cancelled = {}
if live then
  -- A lost group raises NOGROUP here, while nothing has been handed out that the error would lose.
  for stream = 1, 3 do
    redis.call('XPENDING', KEYS[stream], group, 0, 0, 1)
  end
  read_shares()
  if redis.call('EXISTS', KEYS[5]) == 1 then
    cancelled = cancelled_of_mine()
  end
end
return {now, live and 1 or 0, lapsed, entries[1], entries[2], entries[3], cancelled}
