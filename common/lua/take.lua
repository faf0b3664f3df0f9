-- take: hand entries to one worker, a share of each priority, without waiting.
-- A worker whose lease has run out gets nothing: others are already taking over what it held.
-- A small backlog is shared evenly: nobody gets more than brings what it holds to the mean of all live workers.
--
-- KEYS  1-15  stream  high, normal, low, and then these three in each bulk lane
--       16    zset    leases: consumer -> ms at which its lease ends
--       17    set     cancelled: places "<stream 1-15>:<entry id>" that nobody waits for
--       18    zset    lanes: ":<bulk lane>" -> the weight of its tenants together, ":turn" -> takes from several lanes
-- ARGV  1     group
--       2     consumer
--       3-5   the shares of high, normal and low; what one leaves over goes to the others, high first
--       6     1 if the bulk lanes are read, too: after the ordinary ones, with an eighth of each share for certain
-- reply {now ms, 1 if the lease is live else 0, 1 if some lease has run out else 0,
--        cancelled places among all that the worker holds,
--        workers whose lease is live, entries that are left for them,
--        and of each stream that gives some its number and its entries}
--       where an entry is {id, {field, value, ...}}

local PRIORITIES, STREAMS, BULK_PART = 3, 15, 8
local LEASES, CANCELLED, LANES = KEYS[16], KEYS[17], KEYS[18]
local group, me, reads_bulk = ARGV[1], ARGV[2], ARGV[6] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', LEASES, me)
local live = lease and tonumber(lease) > now
local lapsed = #redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 1)

-- Of each stream: what was read, and whether there may be more.
local entries, more = {}, {}

local function read(stream, count)
  if count <= 0 or not more[stream] then
    return 0
  end
  local streams = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', KEYS[stream], '>')
  local found, into = streams and streams[1][2] or {}, entries[stream] or {}
  entries[stream] = into
  for i = 1, #found do
    into[#into + 1] = found[i]
  end
  more[stream] = #found == count
  return #found
end

-- The three shares, scaled down where together they are more than `most`. What rounding leaves over is drawn by lot:
-- else a lower priority would get nothing for as long as all takes are small.
local function shares_of(most)
  local shares, total = {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])}, ARGV[3] + ARGV[4] + ARGV[5]
  if total <= most then
    return shares
  end
  local scaled, rest = {}, most
  for priority = 1, 3 do
    scaled[priority] = math.floor(shares[priority] * most / total)
    rest = rest - scaled[priority]
  end
  for place = 1, rest do
    local ticket, priority = (time[2] + place) % total, 1
    while ticket >= shares[priority] do
      ticket, priority = ticket - shares[priority], priority + 1
    end
    scaled[priority] = scaled[priority] + 1
  end
  return scaled
end

-- The bulk lanes of a priority that may have more.
local function open_lanes(priority)
  local open = {}
  for stream = priority + PRIORITIES, STREAMS, PRIORITIES do
    if more[stream] then
      open[#open + 1] = stream
    end
  end
  return open
end

-- What only raw producers put into a lane weighs as much as one tenant.
local weights
local function weight_of(stream)
  if not weights then
    weights = {}
    for lane = 1, STREAMS / PRIORITIES - 1 do
      weights[lane] = tonumber(redis.call('ZSCORE', LANES, ':' .. lane) or 1)
    end
  end
  return weights[math.floor((stream - 1) / PRIORITIES)]
end

-- `count` places, parted by weight. All borders between the lanes are shifted by a part of a place that is another one
-- with each take, so that each lane has its share however small the takes are (systematic sampling, with the golden
-- ratio's multiples as starts: of these no few in a row lie close together).
local function read_by_weight(open, count)
  local total, got, upto = 0, 0, 0
  for _, stream in ipairs(open) do
    total = total + weight_of(stream)
  end
  local turn = (redis.call('ZSCORE', LANES, ':turn') or 0) + 1
  local border = turn * 0.6180339887498949 % 1
  for at, stream in ipairs(open) do
    border = border + count * weight_of(stream) / total
    local next = at < #open and math.min(count, math.floor(border)) or count
    got = got + read(stream, next - upto)
    upto = next
  end
  -- Behind the reads, which need no memory: a full Redis then lets it be written, too.
  redis.call('ZADD', LANES, turn, ':turn')
  return got
end

local function read_bulk(priority, count)
  local got, open = 0, open_lanes(priority)
  while got < count and #open > 0 do
    got = got + (#open == 1 and read(open[1], count - got) or read_by_weight(open, count - got))
    open = open_lanes(priority)
  end
  return got
end

-- Drawn by lot, too, where a share is small.
local function promised(share)
  return math.floor(share / BULK_PART) + (time[2] % BULK_PART < share % BULK_PART and 1 or 0)
end

local function read_priority(priority, share)
  local got = read(priority, share - (#open_lanes(priority) > 0 and promised(share) or 0))
  got = got + read_bulk(priority, share - got)
  return got + read(priority, share - got)
end

local function read_shares(shares)
  local spare = 0
  for priority = 1, 3 do
    spare = spare + shares[priority] - read_priority(priority, shares[priority])
  end
  for priority = 1, 3 do
    spare = spare - read_priority(priority, spare)
  end
end

local function add_marked(places, found)
  for i, marked in ipairs(redis.call('SMISMEMBER', CANCELLED, unpack(places))) do
    if marked == 1 then
      found[#found + 1] = places[i]
    end
  end
end

-- Only the marks of what this worker holds: the cost is bounded by that, however many were ever cancelled. Most
-- hold a few hundred entries; where a model takes thousands of rows at once they come in pages.
local PAGE = 1000
local function cancelled_of_mine(holds)
  local found = {}
  for stream in pairs(holds) do
    local from, pending = '-', nil
    repeat
      pending = redis.call('XPENDING', KEYS[stream], group, from, '+', PAGE, me)
      local places = {}
      for i = 1, #pending do
        places[i] = stream .. ':' .. pending[i][1]
        from = '(' .. pending[i][1]
      end
      if #places > 0 then
        add_marked(places, found)
      end
    until #pending < PAGE
  end
  return found
end

-- A lost group raises NOGROUP here, while nothing has been handed out that the error would lose.
local function count()
  local unfinished, held, mine, holds = 0, 0, 0, {}
  for stream = 1, STREAMS do
    local length = redis.call('XLEN', KEYS[stream])
    if length > 0 then
      local pending = redis.call('XPENDING', KEYS[stream], group)
      more[stream] = stream <= PRIORITIES or reads_bulk
      unfinished = unfinished + length
      held = held + pending[1]
      for _, one in ipairs(pending[4] or {}) do
        if one[1] == me then
          mine = mine + one[2]
          holds[stream] = true
        end
      end
    end
  end
  return unfinished, held, mine, holds
end

-- Who finds nothing goes on to a blocking read, which needs the groups of the empty streams, too.
local function look_for_groups()
  for stream = 1, STREAMS do
    if redis.call('XLEN', KEYS[stream]) == 0 then
      redis.call('XPENDING', KEYS[stream], group)
    end
  end
end

local cancelled, workers, left, given = {}, 0, 0, {}
if live then
  local unfinished, held, mine, holds = count()
  workers = redis.call('ZCOUNT', LEASES, '(' .. now, '+inf')
  read_shares(shares_of(math.max(0, math.ceil(unfinished / workers) - mine)))
  left = unfinished - held
  for stream = 1, STREAMS do
    local found = entries[stream]
    if found and #found > 0 then
      given[#given + 1], given[#given + 2] = stream, found
      left = left - #found
      holds[stream] = true
    end
  end
  if #given == 0 then
    look_for_groups()
  end
  if redis.call('EXISTS', CANCELLED) == 1 then
    cancelled = cancelled_of_mine(holds)
  end
end
return {now, live and 1 or 0, lapsed, cancelled, workers, left, unpack(given)}
