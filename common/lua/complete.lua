-- complete: finish a micro-batch. The first finisher of an entry wins; a late one changes nothing.
--
-- KEYS  1       hash    tenants: unfinished requests by tenant, and under ":bytes" those of the bytes bound
--       2       zset    lanes: tenant -> its bulk lane, "<tenant>:" -> the weight that it has there,
--                       ":<lane>" -> the weight of the lane's tenants together, ":turn" -> takes from several lanes
--       3       stream  dead letters
--       4       set     cancelled: places "<stream 1-15>:<entry id>" that nobody waits for
--       4+s     stream  the s-th of those that hold the items
--       then    string  reply and waiters ("<place> <inbox> <inbox> ...") of each item
--       then    string  payload keys to delete
-- ARGV  1       group
--       2       number of items
--       3       number of dead letters
--       4       ms for which an inbox lives after a push
--       5       bytes up to which a reply is pushed whole; a longer one is fetched by its key
--       6       most dead letters kept
--       7       number of streams, and behind it the number (1-15) of each
--       then    of each item which of these streams it is in, entry id, what submit counted ("", tenant or
--               "tenant:bytes"), reply_to inbox or "", ms for which the reply is kept (0: not stored), the reply
--       then    item number, reason and deliveries of each dead letter
--       then    item number of each payload key
-- reply number of items that this call finished

local group, total, letters = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local inbox_lifetime, whole_up_to, streams = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[7])
if total == 0 then
  return 0
end

local TENANTS, LANES, DEAD, CANCELLED, BEFORE_STREAMS, PER_ITEM = KEYS[1], KEYS[2], KEYS[3], KEYS[4], 4, 6
local replies_at, items_at = BEFORE_STREAMS + streams - 1, 8 + streams - PER_ITEM
local reply_keys, waiters_keys = {}, {}
for i = 1, total do
  reply_keys[i], waiters_keys[i] = KEYS[replies_at + 2 * i], KEYS[replies_at + 2 * i + 1]
end
local waiters = redis.call('MGET', unpack(waiters_keys))

-- Redis at its maxmemory refuses a script's writes, unless one that needs no memory came first: work can
-- always be finished, and so memory be freed.
redis.call('XACK', KEYS[BEFORE_STREAMS + 1], group, '0-0')

local letters_at = items_at + PER_ITEM * (total + 1)
local payloads_at = letters_at + 3 * letters
local letter_of = {}
for at = letters_at, payloads_at - 1, 3 do
  letter_of[tonumber(ARGV[at])] = at
end

-- Copies what the entry holds, whoever wrote it, under names of ours.
local function bury(stream, number, id, reason, deliveries)
  local entry = redis.call('XRANGE', KEYS[BEFORE_STREAMS + stream], id, id)[1]
  local fields, values = entry and entry[2] or {}, {}
  for field = 1, #fields, 2 do
    values[fields[field]] = fields[field + 1]
  end
  local letter = {'entry', id, 'stream', number, 'reason', reason, 'deliveries', deliveries}
  for _, name in ipairs({'d', 'r', 't'}) do
    if values[name] then
      letter[#letter + 1] = name
      letter[#letter + 1] = values[name]
    end
  end
  redis.call('XADD', DEAD, 'MAXLEN', '~', ARGV[6], '*', unpack(letter))
end

local finished, won, ended = 0, {}, {}
local dropped, unmarked = {}, {}
local acked, deleted = {}, {}
for stream = 1, streams do
  acked[stream], deleted[stream] = {}, {}
end
local pushes, inboxes, left = {}, {}, {}

-- Our own waiters are there exactly until the entry is finished: they prove that it is not. For a raw producer's
-- entry, one that was cancelled, or waiters that have expired, XACK itself tells who is first.
local function is_first(stream, id, place, owned)
  if ended[place] then
    return false
  end
  ended[place] = true
  if owned then
    acked[stream][#acked[stream] + 1] = id
    return true
  end
  unmarked[#unmarked + 1] = place
  return redis.call('XACK', KEYS[BEFORE_STREAMS + stream], group, id) == 1
end

local function push(inbox, message)
  local list = pushes[inbox]
  if not list then
    list = {}
    pushes[inbox] = list
    inboxes[#inboxes + 1] = inbox
  end
  list[#list + 1] = message
end

local function push_all(waiting, reply_to, message)
  for inbox in string.gmatch(waiting, '%S+') do
    push(inbox, message)
    if inbox == reply_to then
      reply_to = ''
    end
  end
  if reply_to ~= '' then
    push(reply_to, message)
  end
end

for i = 1, total do
  local at = items_at + PER_ITEM * i
  local stream, id, counted = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  local reply_to, keep, message = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local number = ARGV[7 + stream]
  local waiting, place = waiters[i], number .. ':' .. id
  local owned = waiting and string.sub(waiting, 1, #place + 1) == place .. ' '
  if is_first(stream, id, place, owned) then
    finished = finished + 1
    won[i] = true
    deleted[stream][#deleted[stream] + 1] = id
    local letter = letter_of[i]
    if letter then
      bury(stream, number, id, ARGV[letter + 1], ARGV[letter + 2])
    end
    -- Another entry that computes the same id stores its own reply.
    if keep ~= '0' and (owned or not waiting) then
      redis.call('SET', reply_keys[i], message, 'PX', keep)
      if #message > whole_up_to then
        message = reply_keys[i]
      end
    end
    if owned then
      dropped[#dropped + 1] = waiters_keys[i]
    end
    push_all(owned and string.sub(waiting, #place + 2) or '', reply_to, message)
    if counted ~= '' then
      left[counted] = (left[counted] or 0) + 1
    end
  end
end

for stream = 1, streams do
  if #acked[stream] > 0 then
    redis.call('XACK', KEYS[BEFORE_STREAMS + stream], group, unpack(acked[stream]))
  end
  if #deleted[stream] > 0 then
    redis.call('XDEL', KEYS[BEFORE_STREAMS + stream], unpack(deleted[stream]))
  end
end

-- True where nothing is left of it.
local function uncount(what, count)
  -- A count that a raw producer's forged tenant would take below zero is removed instead.
  if redis.call('HINCRBY', TENANTS, what, -count) > 0 then
    return false
  end
  redis.call('HDEL', TENANTS, what)
  return true
end

local function leave_lane(tenant)
  local lane = redis.call('ZSCORE', LANES, tenant)
  if not lane then
    return
  end
  local own, whole = tenant .. ':', ':' .. lane
  local left = (redis.call('ZSCORE', LANES, whole) or 0) - (redis.call('ZSCORE', LANES, own) or 0)
  redis.call('ZREM', LANES, tenant, own)
  -- Sums of fractions end near 0, and no weight is less than 0.001.
  if left > 0.0005 then
    redis.call('ZADD', LANES, left, whole)
  else
    redis.call('ZREM', LANES, whole)
  end
  -- Each tenant that has a lane has two members: one alone is the turn.
  if redis.call('ZCOUNT', LANES, '-inf', '+inf') == 1 then
    redis.call('DEL', LANES)
  end
end

local tenants, bytes = {}, 0
for counted, count in pairs(left) do
  local tenant, size = counted, nil
  if string.find(counted, ':', 1, true) then
    tenant, size = string.match(counted, '^([^:]*):(%d+)$')
    -- A forged size of any length must not make HINCRBY fail halfway.
    size = size and #size <= 15 and size
  end
  if tenant and tenant ~= '' then
    tenants[tenant] = (tenants[tenant] or 0) + count
  end
  bytes = bytes + count * (size or 0)
end
for tenant, count in pairs(tenants) do
  if uncount(tenant, count) then
    leave_lane(tenant)
  end
end
if bytes > 0 then
  uncount(':bytes', string.format('%.0f', bytes))
end
if #unmarked > 0 then
  redis.call('SREM', CANCELLED, unpack(unmarked))
end
-- What a late finisher's item has under this key belongs to a later request of the same id.
for i = 0, #ARGV - payloads_at do
  if won[tonumber(ARGV[payloads_at + i])] then
    dropped[#dropped + 1] = KEYS[replies_at + 2 * (total + 1) + i]
  end
end
if #dropped > 0 then
  redis.call('DEL', unpack(dropped))
end
for _, inbox in ipairs(inboxes) do
  -- pcall: a client that made its inbox anything but a list fails alone.
  redis.pcall('RPUSH', inbox, unpack(pushes[inbox]))
  redis.call('PEXPIRE', inbox, inbox_lifetime)
end
return finished
