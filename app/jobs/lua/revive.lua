#!lua flags=allow-oom
-- ARGV: id, id, ...
-- Gives dead jobs another life, in which they run alone until they are done. Returns how many there were.
local revived = 0
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', dead_key, id) == 1 then
    local tenant, cost_ms = unpack(redis.call('HMGET', job_key(id), 'tenant', 'cost_ms'))
    redis.call('HDEL', job_key(id), 'error', 'finished_ms', 'progress', 'steps', 'token', 'worker')
    redis.call('HSET', job_key(id), 'attempts', 0, 'crashes', 1)
    redis.call('HINCRBY', tenant_key(tenant), 'open', 1)
    redis.call('HINCRBY', tenant_key(tenant), 'work_ms', cost_ms)
    redis.call('HINCRBY', totals_key, 'dead', -1)
    enqueue(id)
    revived = revived + 1
  end
end
return revived
