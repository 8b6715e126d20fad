#!lua
-- ARGV: id, tenant, lane, priority, cost in GPU-ms, spec, most queued jobs in the lane, most open jobs of the tenant,
--   idempotency key or '', hash of the request, ms that the key lives, ms until it is canceled unless it is over or -1
-- Returns {'OK', id}, id being the earlier job's where this key was used before (also when this id was submitted
-- before: a lost reply is asked again), {'REUSED'} where that was another request, or {'FULL' or 'TENANT_FULL',
-- jobs, ms until a place should be free}.
-- Not allow-oom: a full server refuses new work while running jobs finish.
local id, tenant, lane, priority, cost_ms, spec, max_queued, max_open, key, body, key_ms, cancel_ms =
  unpack(ARGV)
local idem_key = prefix .. 'idem:' .. tenant .. ':' .. key
if redis.call('EXISTS', job_key(id)) == 1 then return {'OK', id} end
if key ~= '' then
  local earlier, earlier_body = unpack(redis.call('HMGET', idem_key, 'id', 'body'))
  if earlier then
    if earlier_body ~= body then return {'REUSED'} end
    return {'OK', earlier}
  end
end

-- Ms until another place in the lane. While it is full, each who is refused is promised the next one after those
-- already promised, as if they stood in line outside: so that what they are told is true when all of them come back.
local function promise(of, pace_ms)
  local now = now_ms()
  local free_ms = math.max(now, tonumber(redis.call('HGET', of, 'promised_ms') or 0)) + pace_ms
  free_ms = math.min(free_ms, now + 3600 * 1000)
  redis.call('HSET', of, 'promised_ms', number(free_ms))
  return math.ceil(free_ms - now)
end

-- With a tenth of the places free, whoever was promised one does not come back for it.
local function forget_promises(of, held, most)
  if held == 0 or held + 1 < 0.9 * most then redis.call('HDEL', of, 'promised_ms') end
end

local queued = tonumber(redis.call('HGET', lane_key(lane), 'queued') or 0)
if queued >= tonumber(max_queued) then return {'FULL', queued, promise(lane_key(lane), pace_ms(lane))} end
local open = tonumber(redis.call('HGET', tenant_key(tenant), 'open') or 0)
if open >= tonumber(max_open) then
  local others = math.max(1, redis.call('ZCARD', ready_key(lane)))
  return {'TENANT_FULL', open, promise(tenant_key(tenant), pace_ms(lane) * others)}
end

forget_promises(lane_key(lane), queued, tonumber(max_queued))
forget_promises(tenant_key(tenant), open, tonumber(max_open))
local seq = redis.call('INCR', prefix .. 'seq')
redis.call('HSET', job_key(id), 'tenant', tenant, 'lane', lane, 'priority', priority, 'cost_ms', cost_ms, 'spec', spec,
  'seq', seq, 'attempts', 0, 'crashes', 0, 'submitted_ms', now_ms())
redis.call('ZADD', jobs_key(tenant), seq, id)
redis.call('HINCRBY', tenant_key(tenant), 'open', 1)
redis.call('HINCRBY', tenant_key(tenant), 'work_ms', cost_ms)
redis.call('HINCRBY', totals_key, 'submitted', 1)
if key ~= '' then
  redis.call('HSET', job_key(id), 'idem', key)
  redis.call('HSET', idem_key, 'id', id, 'body', body)
  redis.call('PEXPIRE', idem_key, key_ms)
end
if tonumber(cancel_ms) >= 0 then redis.call('ZADD', cancel_after_key, now_ms() + cancel_ms, id) end
enqueue(id)
return {'OK', id}
