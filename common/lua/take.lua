-- take: hand entries to one worker, a share of each priority, without waiting.
-- A worker whose lease has run out gets nothing: others are already taking over what it held.
-- A small backlog is shared evenly: nobody gets more than brings what it holds to the mean of all live workers.
--
-- KEYS  1-6   stream  high, normal, low, and their bulk lanes
--       7     zset    leases: consumer -> ms at which its lease ends
--       8     set     cancelled: places "<stream 1-6>:<entry id>" that nobody waits for
-- ARGV  1     group
--       2     consumer
--       3-5   the shares of high, normal and low; what one leaves over goes to the others, high first
--       6     1 if the bulk lanes are read, too: after the ordinary ones, with an eighth of each share for certain
-- reply {now ms, 1 if the lease is live else 0, 1 if some lease has run out else 0,
--        entries of the six streams, cancelled places among all that the worker holds,
--        workers whose lease is live, entries that are left for them}
--       where an entry is {id, {field, value, ...}}

local BULK, BULK_PART = 3, 8
local group, me, reads_bulk = ARGV[1], ARGV[2], ARGV[6] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('ZSCORE', KEYS[7], me)
local live = lease and tonumber(lease) > now
local lapsed = #redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now, 'LIMIT', 0, 1)

local entries = {{}, {}, {}, {}, {}, {}}
-- Of each stream: whether there may be more to read.
local more = {}

local function read(stream, count)
  if count <= 0 or not more[stream] then
    return 0
  end
  local streams = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', count, 'STREAMS', KEYS[stream], '>')
  local found, into = streams and streams[1][2] or {}, entries[stream]
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

-- Drawn by lot, too, where a share is small.
local function promised(share)
  return math.floor(share / BULK_PART) + (time[2] % BULK_PART < share % BULK_PART and 1 or 0)
end

local function read_priority(priority, share)
  local bulk = priority + BULK
  local got = read(priority, share - (more[bulk] and promised(share) or 0))
  got = got + read(bulk, share - got)
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
  for i, marked in ipairs(redis.call('SMISMEMBER', KEYS[8], unpack(places))) do
    if marked == 1 then
      found[#found + 1] = places[i]
    end
  end
end

-- Only the marks of what this worker holds: the cost is bounded by that, however many were ever cancelled. Most
-- hold a few hundred entries; where a model takes thousands of rows at once they come in pages.
local PAGE = 1000
local function cancelled_of_mine()
  local found = {}
  for stream = 1, 6 do
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
  local unfinished, held, mine = 0, 0, 0
  for stream = 1, 6 do
    local pending, length = redis.call('XPENDING', KEYS[stream], group), redis.call('XLEN', KEYS[stream])
    more[stream] = length > 0 and (stream <= BULK or reads_bulk)
    unfinished = unfinished + length
    held = held + pending[1]
    for _, one in ipairs(pending[4] or {}) do
      if one[1] == me then
        mine = mine + one[2]
      end
    end
  end
  return unfinished, held, mine
end

local cancelled, workers, left = {}, 0, 0
if live then
  local unfinished, held, mine = count()
  workers = redis.call('ZCOUNT', KEYS[7], '(' .. now, '+inf')
  read_shares(shares_of(math.max(0, math.ceil(unfinished / workers) - mine)))
  left = unfinished - held
  for stream = 1, 6 do
    left = left - #entries[stream]
  end
  if redis.call('EXISTS', KEYS[8]) == 1 then
    cancelled = cancelled_of_mine()
  end
end
return {
  now, live and 1 or 0, lapsed, entries[1], entries[2], entries[3], entries[4], entries[5], entries[6],
  cancelled, workers, left,
}
