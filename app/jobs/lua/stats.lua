#!lua flags=allow-oom
-- Returns {in progress, delayed, dead, {{lane, queued, oldest ms, work ms, pace ms, high, normal, low, suspects}, ...},
--   {WorkerInfo JSON, ...}, {name, total, ...}}.
local now = now_ms()
local lanes = {}
for _, lane in ipairs(redis.call('SMEMBERS', lanes_key)) do
  local oldest, oldest_seq
  local function look(key)
    local id, seq = unpack(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES'))
    if id and (not oldest or tonumber(seq) < oldest_seq) then oldest, oldest_seq = id, tonumber(seq) end
  end
  local by_rank = {0, 0, 0}
  look(front_key(lane))
  look(suspects_key(lane))
  for _, flow in ipairs(redis.call('ZRANGE', ready_key(lane), 0, -1)) do
    local rank = tonumber(flow:sub(1, 1))
    by_rank[rank] = by_rank[rank] + redis.call('ZCARD', queue_key(lane, flow))
    look(queue_key(lane, flow))
  end
  local queued, work_ms = unpack(redis.call('HMGET', lane_key(lane), 'queued', 'work_ms'))
  local waited = oldest and now - tonumber(redis.call('HGET', job_key(oldest), 'submitted_ms')) or 0
  lanes[#lanes + 1] = {lane, tonumber(queued), waited, tonumber(work_ms), math.ceil(pace_ms(lane)), by_rank[1],
    by_rank[2], by_rank[3], redis.call('ZCARD', suspects_key(lane))}
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
return {redis.call('ZCARD', lease_key), redis.call('ZCARD', delayed_key), redis.call('ZCARD', dead_key), lanes, workers,
  redis.call('HGETALL', totals_key)}
