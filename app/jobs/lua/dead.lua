#!lua flags=no-writes
-- ARGV: how many to pass over, most ids
-- Returns {id, tenant, id, tenant, ...} of the dead, the latest first.
local found = {}
for _, id in ipairs(redis.call('ZRANGE', dead_key, ARGV[1], ARGV[1] + ARGV[2] - 1, 'REV')) do
  found[#found + 1] = id
  found[#found + 1] = redis.call('HGET', job_key(id), 'tenant')
end
return found
