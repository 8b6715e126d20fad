#!lua
-- ARGV: id, tenant, lane, spec, most queued jobs in the lane
-- Returns {'OK'} (also when this id was submitted before: a lost reply is asked again) or {'FULL', jobs queued}.
-- Not allow-oom: a full server refuses new work while running jobs finish.
local id, tenant, lane, spec, max_queued = unpack(ARGV)
if redis.call('EXISTS', job_key(id)) == 1 then return {'OK'} end
local queued = redis.call('ZCARD', queue_key(lane))
if queued >= tonumber(max_queued) then return {'FULL', queued} end
local seq = redis.call('INCR', prefix .. 'seq')
redis.call('HSET', job_key(id), 'tenant', tenant, 'lane', lane, 'spec', spec, 'seq', seq, 'attempts', 0,
  'crashes', 0, 'submitted_ms', now_ms())
redis.call('ZADD', prefix .. 'tenant:' .. tenant .. ':jobs', seq, id)
enqueue(id)
return {'OK'}
