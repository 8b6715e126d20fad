#!lua flags=allow-oom
-- ARGV: id, tenant
-- Returns the job's state afterwards, or 'MISSING' (also for another tenant's job). A terminal job is left as it is.
local id, tenant = unpack(ARGV)
local state, owner = unpack(redis.call('HMGET', job_key(id), 'state', 'tenant'))
if owner ~= tenant then return 'MISSING' end
if state == 'queued' then
  dequeue(id)
  finish(id, 'canceled')
elseif state == 'delayed' then
  redis.call('ZREM', delayed_key, id)
  finish(id, 'canceled')
elseif state == 'in_progress' then
  redis.call('HSET', job_key(id), 'state', 'canceling')
  changed(id)
end
return redis.call('HGET', job_key(id), 'state')
