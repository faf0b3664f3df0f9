-- cancel: one client no longer waits. An entry that nobody waits for is marked, and dropped before it is run.
-- It is not deleted: XDEL of an undelivered entry makes the group's lag unknown, and autoscaling blind.
--
-- KEYS  1    set     cancelled: places "<stream 1-15>:<entry id>" that nobody waits for
--       1+i  string  waiters of request i: "<place> <inbox> <inbox> ..."
-- ARGV  1    the client's inbox
--       2    ms for which marks are kept after the last one
-- reply number of entries marked

-- All inboxes but the client's; nil where it does not wait: then it changes nothing, whoever it is.
local function others_of(inboxes)
  local others, waits = {}, false
  for inbox in string.gmatch(inboxes, '%S+') do
    if inbox == ARGV[1] then
      waits = true
    else
      others[#others + 1] = inbox
    end
  end
  return waits and others or nil
end

local places = {}
for i = 2, #KEYS do
  local waiting = redis.call('GET', KEYS[i])
  if waiting then
    local place, inboxes = string.match(waiting, '^(%S+) (.*)$')
    local others = others_of(inboxes)
    if others and #others == 0 then
      redis.call('DEL', KEYS[i])
      places[#places + 1] = place
    elseif others then
      redis.call('SET', KEYS[i], place .. ' ' .. table.concat(others, ' '), 'KEEPTTL')
    end
  end
end
if #places > 0 then
  redis.call('SADD', KEYS[1], unpack(places))
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return #places
