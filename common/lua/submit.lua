-- submit: admit requests, join those already in flight, or answer from the stored reply.
-- Idempotent on each request's id: sending it again never computes it twice.
--
-- KEYS  1-3     stream  high, normal, low
--       4       hash    tenants: unfinished requests by tenant
--       5       hash    limits: "backlog" and "tenant", written by the operator
--       6+2i    string  reply of request i
--       7+2i    string  waiters of request i: "<place> <inbox> <inbox> ...", place: "<stream 1-3>:<entry id>"
-- ARGV  1       inbox that waits for all of them, or ""
--       2       ms for which the waiters live at most
--       3, 4    bounds on the backlog and on a tenant's share, where "limits" has none
--       5+4i    stream of request i (1-3), its tenant or "", the entry's field ("d" or "r"), its value
-- reply one element a request:
--       0 queued | 1 joined | the stored reply | {"backlog" or "tenant", count, bound, wait ms}

local total = (#KEYS - 5) / 2
if total == 0 then
  return {}
end

local inbox, lifetime = ARGV[1], ARGV[2]
local limits = redis.call('HMGET', KEYS[5], 'backlog', 'tenant')
local backlog_bound = tonumber(limits[1] or ARGV[3])
local tenant_bound = tonumber(limits[2] or ARGV[4])
local backlog = redis.call('XLEN', KEYS[1]) + redis.call('XLEN', KEYS[2]) + redis.call('XLEN', KEYS[3])

local stored_keys = {}
for i = 1, 2 * total do
  stored_keys[i] = KEYS[5 + i]
end
local stored = redis.call('MGET', unpack(stored_keys))

local unfinished, admitted = {}, {}

local function tenant_count(tenant)
  if not unfinished[tenant] then
    unfinished[tenant] = tonumber(redis.call('HGET', KEYS[4], tenant) or 0)
    admitted[tenant] = 0
  end
  return unfinished[tenant] + admitted[tenant]
end

-- A queue drains about as fast as its oldest entry is old: offer an eighth of that, 50 ms to 10 s.
local wait
local function suggested_wait()
  if not wait then
    local now = redis.call('TIME')[1] * 1000
    local oldest = now
    for i = 1, 3 do
      local first = redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 1)[1]
      if first then
        oldest = math.min(oldest, tonumber(string.match(first[1], '^%d+')))
      end
    end
    wait = math.max(50, math.min(10000, math.floor((now - oldest) / 8)))
  end
  return wait
end

local function join(key, waiters)
  if inbox ~= '' and not string.find(waiters .. ' ', ' ' .. inbox .. ' ', 1, true) then
    redis.call('APPEND', key, ' ' .. inbox)
    waiters = waiters .. ' ' .. inbox
  end
  if redis.call('PTTL', key) < tonumber(lifetime) then
    redis.call('PEXPIRE', key, lifetime)
  end
  return waiters
end

local answers = {}
-- Waiters as this call left them: an id that comes again in it meets them, not what MGET read.
local changed = {}
for i = 1, total do
  local reply, waiters_key = stored[2 * i - 1], KEYS[5 + 2 * i]
  local waiters = changed[waiters_key] or stored[2 * i]
  if reply then
    answers[i] = reply
  elseif waiters then
    changed[waiters_key] = join(waiters_key, waiters)
    answers[i] = 1
  else
    local at = 4 + 4 * (i - 1)
    local tenant = ARGV[at + 2]
    if backlog >= backlog_bound then
      answers[i] = {'backlog', backlog, backlog_bound, suggested_wait()}
    elseif tenant ~= '' and tenant_count(tenant) >= tenant_bound then
      answers[i] = {'tenant', tenant_count(tenant), tenant_bound, suggested_wait()}
    else
      local stream, id = KEYS[tonumber(ARGV[at + 1])], nil
      if tenant ~= '' then
        id = redis.call('XADD', stream, '*', ARGV[at + 3], ARGV[at + 4], 't', tenant)
        admitted[tenant] = admitted[tenant] + 1
      else
        id = redis.call('XADD', stream, '*', ARGV[at + 3], ARGV[at + 4])
      end
      -- Entry ids are unique within a stream only: two streams often get the same id in one millisecond.
      local registered = ARGV[at + 1] .. ':' .. id .. ' ' .. inbox
      redis.call('SET', waiters_key, registered, 'PX', lifetime)
      changed[waiters_key] = registered
      backlog = backlog + 1
      answers[i] = 0
    end
  end
end

for tenant, count in pairs(admitted) do
  if count > 0 then
    redis.call('HINCRBY', KEYS[4], tenant, count)
  end
end
return answers
