#!lua flags=allow-oom
-- Returns {in progress, delayed, dead, {{lane, queued, oldest ms, work ms, pace ms, high, normal, low, suspects,
--   in progress}, ...},
--   {WorkerInfo JSON, ...}, {name, total, ...}}.
local now = now_ms()
local lanes = {}
for _, lane in ipairs(redis.call('SMEMBERS', lanes_key)) do
  local oldest, oldest_seq
  local function look(key)
    local id, seq = unpack(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES'))
    if id and (not oldest or tonumber(seq) < oldest_seq) then oldest, oldest_seq = id, tonumber(seq) end
  end
  look(front_key(lane))
  look(suspects_key(lane))
  local first, first_seq
  for _, place in ipairs(redis.call('ZRANGE', ready_key(lane), 0, -1)) do
    local flow, seq = flow_at(place)
    if not first or seq < first_seq then first, first_seq = flow, seq end
  end
  if first then look(queue_key(lane, first)) end
  local queued, work_ms, high, normal, low, held =
    unpack(redis.call('HMGET', lane_key(lane), 'queued', 'work_ms', 'high', 'normal', 'low', 'held'))
  local waited = oldest and now - tonumber(redis.call('HGET', job_key(oldest), 'submitted_ms')) or 0
  lanes[#lanes + 1] = {lane, tonumber(queued), waited, tonumber(work_ms), math.ceil(pace_ms(lane)), tonumber(high or 0),
    tonumber(normal or 0), tonumber(low or 0), redis.call('ZCARD', suspects_key(lane)),
    tonumber(held or 0)}
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
