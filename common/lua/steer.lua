-- steer: replace what an operator says of one model's versions, unless another operator was faster.
--
-- KEYS  1    hash    traffic: model -> msgpack map of aliases and split
-- ARGV  1    the model
--       2    the map that was read, empty where there was none
--       3    the map to write, empty to remove it
-- reply 1, or 0 where the map is no longer the one that was read

if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
return 1
