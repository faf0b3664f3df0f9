-- submit: admit requests, join those already in flight, or answer from the stored reply.
-- Idempotent on each request's id: sending it again never computes it twice.
-- A tenant with many unfinished requests goes on in a bulk lane of its priority, where no other waits behind them
-- (after fq_codel's sparse flows, RFC 8290). It stays in that lane until it has no unfinished request left.
--
-- KEYS  1-15    stream  high, normal, low, and then these three in each bulk lane
--       16      hash    limits, written by the operator: "backlog", "bytes", "tenant", "light", "rate", "burst", and
--                       "tenant:<name>": "<weight> <in flight> <rate> <burst>", each a number or "-";
--                       and by workers "generation", which changes with what they publish of their models
--       17      zset    rates: tenant -> ms at which its token bucket is full again
--       18      hash    tenants: unfinished requests by tenant, and under ":bytes" those of the bytes bound
--       19      zset    lanes: tenant -> its bulk lane, "<tenant>:" -> the weight that it has there,
--                       ":<lane>" -> the weight of the lane's tenants together, ":turn" -> takes from several lanes
--       18+2i   string  reply of request i
--       19+2i   string  waiters of request i: "<place> <inbox> <inbox> ...", place: "<stream 1-15>:<entry id>"
-- ARGV  1       inbox that waits for all of them, or ""
--       2       ms for which the waiters live at most
--       3-5     backlog, tenant and light, where "limits" has none
--       6       bytes up to which a stored reply is answered whole; a longer one is fetched by its key
--       7+4i    stream of request i (1-3), its tenant or "", the entry's field ("d", or "r:<bytes>"), its value
-- reply the generation, behind one element a request:
--       0 queued | 1 joined | the stored reply, or its key | {"backlog", "bytes", "tenant" or "rate", count, bound, wait ms}
--       where the count of "rate" is the burst

local PRIORITIES, STREAMS, FIRST, PER_REQUEST = 3, 15, 19, 4
local LIMITS, RATES, TENANTS, LANES = KEYS[16], KEYS[17], KEYS[18], KEYS[19]
local total = (#KEYS - FIRST) / 2
if total == 0 then
  return {}
end

local inbox, lifetime, whole_up_to = ARGV[1], ARGV[2], ARGV[6]
local limits = redis.call('HMGET', LIMITS, 'backlog', 'tenant', 'light', 'bytes', 'rate', 'burst', 'generation')
local backlog_bound = tonumber(limits[1] or ARGV[3])
local bytes_bound = tonumber(limits[4])
local backlog = redis.call('XLEN', KEYS[1]) + redis.call('XLEN', KEYS[2]) + redis.call('XLEN', KEYS[3])

-- Most requests are new and of no tenant: one look at all keys tells so. Of stored replies no more is read than is
-- answered, since 64 of them may have 4 GiB.
local waiting
local known = redis.call('EXISTS', unpack(KEYS, FIRST))
if known > 0 and redis.call('EXISTS', LANES) == 1 then
  -- Only who has a lane puts work into one.
  for stream = PRIORITIES + 1, STREAMS do
    backlog = backlog + redis.call('XLEN', KEYS[stream])
  end
  known = known - 1
end
if known > 0 then
  local waiters_keys = {}
  for i = 1, total do
    waiters_keys[i] = KEYS[FIRST + 2 * i]
  end
  waiting = redis.call('MGET', unpack(waiters_keys))
end

-- What was trimmed away or deleted by hand is never completed, and keeps nobody out: an idle pool has none.
if backlog == 0 and redis.call('EXISTS', TENANTS) == 1 then
  redis.call('DEL', TENANTS, LANES)
end

-- Counted while there is a bound, with what each entry says it was counted for: exact for those, whatever happens to
-- them.
local bytes, bytes_before
if bytes_bound then
  bytes_before = tonumber(redis.call('HGET', TENANTS, ':bytes') or 0)
  bytes = bytes_before
end

local function stored(key)
  local reply = redis.call('GETRANGE', key, 0, whole_up_to)
  if #reply > tonumber(whole_up_to) then
    return key
  end
  return reply ~= '' and reply
end

local clock
local function now_ms()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] * 1000 + time[2] / 1000
  end
  return clock
end

-- A token bucket is one number, the time at which it is full again (the generic cell rate algorithm).
local accounts = {}
local function account_of(tenant)
  local account = accounts[tenant]
  if account then
    return account
  end
  local own = redis.call('HGET', LIMITS, 'tenant:' .. tenant)
  local weight, bound, rate, burst
  if own then
    weight, bound, rate, burst = string.match(own, '^(%S+) (%S+) (%S+) (%S+)$')
  end
  weight = math.max(0.001, tonumber(weight) or 1)
  account = {
    unfinished = tonumber(redis.call('HGET', TENANTS, tenant) or 0),
    admitted = 0,
    weight = weight,
    bound = tonumber(bound) or tonumber(limits[2] or ARGV[4]),
    light = tonumber(limits[3] or ARGV[5]) * weight,
  }
  rate = tonumber(rate)
  if not rate and limits[5] then
    rate, burst = tonumber(limits[5]), limits[6]
  end
  if rate then
    account.rate, account.burst, account.each = rate, math.max(1, tonumber(burst) or rate), 1000 / rate
    account.full_at = math.max(now_ms(), tonumber(redis.call('ZSCORE', RATES, tenant) or 0))
    account.refused = 0
  end
  accounts[tenant] = account
  return account
end

-- A queue drains about as fast as its oldest entry is old: offer an eighth of that, 50 ms to 10 s.
local suggested
local function suggested_wait()
  if not suggested then
    local oldest = now_ms()
    for stream = 1, STREAMS do
      local first = redis.call('XRANGE', KEYS[stream], '-', '+', 'COUNT', 1)[1]
      if first then
        oldest = math.min(oldest, tonumber(string.match(first[1], '^%d+')))
      end
    end
    suggested = math.max(50, math.min(10000, math.floor((now_ms() - oldest) / 8)))
  end
  return suggested
end

-- A tenant's refusal; nil where its bounds allow one more. Who is refused a token is told to come when the next one is
-- there, and behind the others of this call: whoever comes again at that pace meets no refusal.
local function over(account)
  if account.unfinished >= account.bound then
    return {'tenant', account.unfinished, account.bound, suggested_wait()}
  end
  if account.rate then
    local wait = account.full_at - now_ms() + (1 - account.burst) * account.each
    if wait > 0 then
      wait = math.ceil(math.max(wait, account.each) + account.refused * account.each)
      account.refused = account.refused + 1
      return {'rate', tostring(account.burst), tostring(account.rate), wait}
    end
  end
end

local function weight_of(whose)
  return tonumber(redis.call('ZSCORE', LANES, whose) or 0)
end

-- Where a newcomer of this weight waits least: behind the fewest requests for each unit of weight, its own included.
local function best_lane(own)
  local best, best_wait, best_weight
  for lane = 1, STREAMS / PRIORITIES - 1 do
    local waiting, weight = 0, weight_of(':' .. lane)
    for priority = 1, PRIORITIES do
      waiting = waiting + redis.call('XLEN', KEYS[PRIORITIES * lane + priority])
    end
    local wait = waiting / (weight + own)
    if not best or wait < best_wait or (wait == best_wait and weight < best_weight) then
      best, best_wait, best_weight = lane, wait, weight
    end
  end
  return best
end

-- A weight that an operator has changed counts from the tenant's next request on.
local function lane_of(tenant, account)
  if account.lane then
    return account.lane
  end
  local own, weight = tenant .. ':', account.weight
  local lane, before = redis.call('ZSCORE', LANES, tenant), weight_of(own)
  if not lane or before ~= weight then
    lane = lane or best_lane(weight)
    local whole = ':' .. lane
    redis.call('ZADD', LANES, lane, tenant, weight, own, weight_of(whole) + weight - before, whole)
  end
  account.lane = lane
  return lane
end

-- (the stream, what complete has to uncount, or the refusal). A request that alone is over the bytes bound passes while
-- nothing else is there.
local function charge(stream, tenant, size)
  if bytes_bound and bytes > 0 and bytes + size > bytes_bound then
    return stream, tenant, {'bytes', bytes, bytes_bound, suggested_wait()}
  end
  if tenant ~= '' then
    local account = account_of(tenant)
    local refusal = over(account)
    if refusal then
      return stream, tenant, refusal
    end
    if account.unfinished >= account.light then
      stream = stream + PRIORITIES * lane_of(tenant, account)
    end
    account.unfinished = account.unfinished + 1
    account.admitted = account.admitted + 1
    if account.rate then
      account.full_at = account.full_at + account.each
    end
  end
  if bytes_bound then
    bytes = bytes + size
    tenant = tenant .. ':' .. size
  end
  return stream, tenant
end

-- Workers create the streams and make them permanent. Where none has been yet, perhaps because there is no such
-- pool, they live only as long as somebody waits.
local unserved
local function look_who_serves()
  if unserved == nil then
    unserved = true
    for stream = 1, STREAMS do
      unserved = unserved and redis.call('PTTL', KEYS[stream]) ~= -1
    end
  end
end

local function add_first(stream, ...)
  look_who_serves()
  return redis.call('XADD', stream, '*', ...)
end

-- Not where the entry is gone, unfinished: deleted by hand, or with a stream that nobody served.
local function is_in_flight(waiters)
  local stream, id = string.match(waiters, '^(%d+):(%S+)')
  return #redis.call('XRANGE', KEYS[tonumber(stream)], id, id) > 0
end

local function is_among(waiters)
  return inbox == '' or string.find(waiters .. ' ', ' ' .. inbox .. ' ', 1, true)
end

local function join(key, waiters)
  if not is_among(waiters) then
    redis.call('APPEND', key, ' ' .. inbox)
  end
  if redis.call('PTTL', key) < tonumber(lifetime) then
    redis.call('PEXPIRE', key, lifetime)
  end
  look_who_serves()
end

-- Those who waited for an entry that is gone wait for the new one.
local function inherited(waiters)
  return string.match(waiters, ' .*') .. (is_among(waiters) and '' or ' ' .. inbox)
end

local answers = {}
-- What this call has queued or joined: an id that comes again in it finds other waiters than MGET did.
local met = {}
for i = 1, total do
  local at, waiters_key = 3 + PER_REQUEST * i, KEYS[FIRST + 2 * i]
  local waiters = waiting and waiting[i]
  local in_flight = met[waiters_key] or (waiters and is_in_flight(waiters))
  local reply = waiting and not in_flight and stored(KEYS[FIRST - 1 + 2 * i])
  if in_flight then
    if not met[waiters_key] then
      join(waiters_key, waiters)
      met[waiters_key] = true
    end
    answers[i] = 1
  elseif reply then
    answers[i] = reply
  elseif backlog >= backlog_bound then
    answers[i] = {'backlog', backlog, backlog_bound, suggested_wait()}
  else
    local stream, tenant, field, value = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local size, refusal, id = #value, nil, nil
    if field ~= 'd' then
      field, size = 'r', tonumber(string.sub(field, 3))
    end
    if tenant ~= '' or bytes_bound then
      stream, tenant, refusal = charge(stream, tenant, size)
    end
    if refusal then
      answers[i] = refusal
    else
      local key = KEYS[tonumber(stream)]
      if tenant ~= '' then
        id = redis.call('XADD', key, 'NOMKSTREAM', '*', field, value, 't', tenant)
          or add_first(key, field, value, 't', tenant)
      else
        id = redis.call('XADD', key, 'NOMKSTREAM', '*', field, value) or add_first(key, field, value)
      end
      -- Entry ids are unique within a stream only: two streams often get the same id in one millisecond.
      local inboxes = waiters and inherited(waiters) or ' ' .. inbox
      redis.call('SET', waiters_key, stream .. ':' .. id .. inboxes, 'PX', lifetime)
      met[waiters_key] = true
      backlog = backlog + 1
      answers[i] = 0
    end
  end
end

local full_at = 0
for tenant, account in pairs(accounts) do
  if account.admitted > 0 then
    redis.call('HINCRBY', TENANTS, tenant, account.admitted)
    if account.rate then
      redis.call('ZADD', RATES, string.format('%.3f', account.full_at), tenant)
      full_at = math.max(full_at, account.full_at)
    end
  end
end
if full_at > 0 then
  redis.call('ZREMRANGEBYSCORE', RATES, '-inf', now_ms())
  local left = math.ceil(full_at - now_ms())
  if redis.call('PTTL', RATES) < left then
    redis.call('PEXPIRE', RATES, left)
  end
end
if bytes_bound and bytes > bytes_before then
  redis.call('HINCRBY', TENANTS, ':bytes', string.format('%.0f', bytes - bytes_before))
end
if unserved then
  -- All of them together: no tenant is charged for an entry that is gone.
  local longest, mortal = tonumber(lifetime), {TENANTS, LANES, unpack(KEYS, 1, STREAMS)}
  for _, key in ipairs(mortal) do
    longest = math.max(longest, redis.call('PTTL', key))
  end
  for _, key in ipairs(mortal) do
    redis.call('PEXPIRE', key, longest)
  end
end
answers[total + 1] = limits[7] or ''
return answers
