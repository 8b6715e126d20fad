#!lua flags=allow-oom
-- ARGV: most crashes before a job is dead, error JSON for a dead job, most jobs to move
-- Anyone may call it, at any time. Returns {requeued, dead, canceled, retried}.
local max_crashes, problem, most = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local requeued, dead, canceled, retried = 0, 0, 0, 0
local now = now_ms()
for _, id in ipairs(redis.call('ZRANGE', lease_key, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
  redis.call('ZREM', lease_key, id)
  if redis.call('HGET', job_key(id), 'state') == 'canceling' then
    finish(id, 'canceled')
    canceled = canceled + 1
  elseif redis.call('HINCRBY', job_key(id), 'crashes', 1) >= max_crashes then
    finish(id, 'dead', 'error', problem)
    redis.call('ZADD', dead_key, now, id)
    dead = dead + 1
  else
    redis.call('HDEL', job_key(id), 'progress', 'token', 'worker')
    enqueue(id)
    requeued = requeued + 1
  end
end
for _, id in ipairs(redis.call('ZRANGE', delayed_key, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
  redis.call('ZREM', delayed_key, id)
  redis.call('HDEL', job_key(id), 'progress', 'token', 'worker')
  enqueue(id)
  retried = retried + 1
end
return {requeued, dead, canceled, retried}
