#!lua flags=allow-oom
-- Returns {in progress, delayed, dead, {lane, queued, oldest ms, ...}, {WorkerInfo JSON, ...}}.
local now = now_ms()
local lanes = {}
for _, lane in ipairs(redis.call('SMEMBERS', lanes_key)) do
  local oldest = redis.call('ZRANGE', queue_key(lane), 0, 0)[1]
  local waited = oldest and now - tonumber(redis.call('HGET', job_key(oldest), 'submitted_ms')) or 0
  lanes[#lanes + 1] = lane
  lanes[#lanes + 1] = redis.call('ZCARD', queue_key(lane))
  lanes[#lanes + 1] = waited
end
local workers = {}
for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'workers')) do
  local info = redis.call('GET', prefix .. 'worker:' .. id)
  if info then
    workers[#workers + 1] = info
  else
    redis.call('SREM', prefix .. 'workers', id)
  end
end
return {redis.call('ZCARD', lease_key), redis.call('ZCARD', delayed_key), redis.call('ZCARD', dead_key), lanes, workers}
