#!lua flags=allow-oom
-- ARGV: id, tenant
-- Returns 'ENDED' (canceled by this very call), 'OK' (left to its worker, or over before) or 'MISSING' (also for another
-- tenant's job).
local id, tenant = unpack(ARGV)
if redis.call('HGET', job_key(id), 'tenant') ~= tenant then return 'MISSING' end
return cancel(id) and 'ENDED' or 'OK'
