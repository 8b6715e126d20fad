#!lua flags=allow-oom
-- ARGV: id, tenant
-- Returns 'ENDED' (canceled by this very call), 'OK' (left to its worker, or over before) or 'MISSING' (also for another
-- tenant's job).
local id, tenant = unpack(ARGV)
local state, owner = unpack(redis.call('HMGET', job_key(id), 'state', 'tenant'))
if owner ~= tenant then return 'MISSING' end
if state == 'queued' then
  dequeue(id)
  finish(id, 'canceled')
  return 'ENDED'
elseif state == 'delayed' then
  redis.call('ZREM', delayed_key, id)
  finish(id, 'canceled')
  return 'ENDED'
elseif state == 'in_progress' then
  redis.call('HSET', job_key(id), 'state', 'canceling')
  changed(id)
end
return 'OK'
