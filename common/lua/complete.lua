-- complete: finish a micro-batch. The first finisher of an entry wins; a late one changes nothing.
--
-- KEYS  1-6     stream  high, normal, low, and their bulk lanes
--       7       hash    tenants: unfinished requests by tenant, and under ":bytes" those of the bytes bound
--       8       stream  dead letters
--       9       set     cancelled: places "<stream 1-6>:<entry id>" that nobody waits for
--       10+2i   string  reply of item i
--       11+2i   string  waiters of item i: "<place> <inbox> <inbox> ..."
--       then    string  payload keys to delete
-- ARGV  1       group
--       2       number of items
--       3       number of dead letters
--       4       ms for which an inbox lives after a push
--       5       bytes up to which a reply is pushed whole; a longer one is fetched by its key
--       6       most dead letters kept
--       7+6i    stream of item i (1-6), entry id, what submit counted ("", tenant or "tenant:bytes"), reply_to inbox or "",
--               ms for which the reply is kept (0: not stored), the reply
--       then    item number, reason and deliveries of each dead letter
--       then    item number of each payload key
-- reply number of items that this call finished

local group, total, letters = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local inbox_lifetime, whole_up_to = ARGV[4], tonumber(ARGV[5])
if total == 0 then
  return 0
end

local waiters_keys = {}
for i = 1, total do
  waiters_keys[i] = KEYS[9 + 2 * i]
end
local waiters = redis.call('MGET', unpack(waiters_keys))

-- Redis at its maxmemory refuses a script's writes, unless one that needs no memory came first: work can
-- always be finished, and so memory be freed.
redis.call('XACK', KEYS[1], group, '0-0')

local letters_at = 7 + 6 * total
local payloads_at = letters_at + 3 * letters
local letter_of = {}
for at = letters_at, payloads_at - 1, 3 do
  letter_of[tonumber(ARGV[at])] = at
end

-- Copies what the entry holds, whoever wrote it, under names of ours.
local function bury(stream, id, reason, deliveries)
  local entry = redis.call('XRANGE', KEYS[stream], id, id)[1]
  local fields, values = entry and entry[2] or {}, {}
  for field = 1, #fields, 2 do
    values[fields[field]] = fields[field + 1]
  end
  local letter = {'entry', id, 'stream', stream, 'reason', reason, 'deliveries', deliveries}
  for _, name in ipairs({'d', 'r', 't'}) do
    if values[name] then
      letter[#letter + 1] = name
      letter[#letter + 1] = values[name]
    end
  end
  redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[6], '*', unpack(letter))
end

local finished, won, ended = 0, {}, {}
local dropped, unmarked = {}, {}
local acked, deleted = {{}, {}, {}, {}, {}, {}}, {{}, {}, {}, {}, {}, {}}
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
  return redis.call('XACK', KEYS[stream], group, id) == 1
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
  local at = 1 + 6 * i
  local stream, id, counted = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2]
  local reply_to, keep, message = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local waiting, place = waiters[i], ARGV[at] .. ':' .. id
  local owned = waiting and string.sub(waiting, 1, #place + 1) == place .. ' '
  if is_first(stream, id, place, owned) then
    finished = finished + 1
    won[i] = true
    deleted[stream][#deleted[stream] + 1] = id
    local letter = letter_of[i]
    if letter then
      bury(stream, id, ARGV[letter + 1], ARGV[letter + 2])
    end
    -- Another entry that computes the same id stores its own reply.
    if keep ~= '0' and (owned or not waiting) then
      redis.call('SET', KEYS[8 + 2 * i], message, 'PX', keep)
      if #message > whole_up_to then
        message = KEYS[8 + 2 * i]
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

for stream = 1, 6 do
  if #acked[stream] > 0 then
    redis.call('XACK', KEYS[stream], group, unpack(acked[stream]))
  end
  if #deleted[stream] > 0 then
    redis.call('XDEL', KEYS[stream], unpack(deleted[stream]))
  end
end

local function uncount(what, count)
  -- A count that a raw producer's forged tenant would take below zero is removed instead.
  if redis.call('HINCRBY', KEYS[7], what, -count) <= 0 then
    redis.call('HDEL', KEYS[7], what)
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
  uncount(tenant, count)
end
if bytes > 0 then
  uncount(':bytes', string.format('%.0f', bytes))
end
if #unmarked > 0 then
  redis.call('SREM', KEYS[9], unpack(unmarked))
end
-- What a late finisher's item has under this key belongs to a later request of the same id.
for i = 0, #ARGV - payloads_at do
  if won[tonumber(ARGV[payloads_at + i])] then
    dropped[#dropped + 1] = KEYS[10 + 2 * total + i]
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
