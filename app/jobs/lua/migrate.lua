#!lua flags=allow-oom
-- Brings a queue of before it knew tenants, priorities and costs into today's form, once. Returns how many jobs it met.
local format_key = prefix .. 'format'
if redis.call('EXISTS', format_key) == 1 then return 0 end
redis.call('SET', format_key, 2)
local old_jobs_key = prefix .. 'tenant:default:jobs'
local old = redis.call('ZRANGE', old_jobs_key, 0, -1)
if #old == 0 then return 0 end
redis.call('RENAME', old_jobs_key, jobs_key('default'))
for _, lane in ipairs(redis.call('SMEMBERS', lanes_key)) do redis.call('DEL', prefix .. 'queue:' .. lane) end
for _, id in ipairs(old) do
  local state, lane, finished_ms = unpack(redis.call('HMGET', job_key(id), 'state', 'lane', 'finished_ms'))
  if state then
    redis.call('HSET', job_key(id), 'priority', 'normal', 'cost_ms', 1000)
    redis.call('HINCRBY', totals_key, 'submitted', 1)
    if finished_ms then
      redis.call('HINCRBY', totals_key, state, 1)
      if state ~= 'dead' then redis.call('ZADD', ended_key, finished_ms, id) end
    else
      redis.call('HINCRBY', tenant_key('default'), 'open', 1)
      redis.call('HINCRBY', tenant_key('default'), 'work_ms', 1000)
      if state == 'queued' then
        enqueue(id)
      elseif state ~= 'delayed' then
        redis.call('HINCRBY', lane_key(lane), 'held', 1)
      end
    end
  end
end
return #old
