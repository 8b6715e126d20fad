#!lua flags=allow-oom
-- ARGV: worker id, WorkerInfo JSON, ms until it is forgotten (0: now)
if tonumber(ARGV[3]) == 0 then
  redis.call('DEL', prefix .. 'worker:' .. ARGV[1])
  redis.call('SREM', prefix .. 'workers', ARGV[1])
else
  redis.call('SET', prefix .. 'worker:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
  redis.call('SADD', prefix .. 'workers', ARGV[1])
end
