#!lua flags=allow-oom
-- ARGV: most crashes before a job is dead, most attempts, error JSON for a dead job, most jobs to move, ms without a
--   tick after which the queue itself was away, lease in ms
-- Anyone may call it, at any time. Returns {requeued, dead, canceled, retried, of the requeued those without blame,
--   {lane of each that ended, ...}, {its state, ...}}.
local max_crashes, max_attempts, problem = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local most, outage_ms, lease_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local requeued, blameless, dead, canceled, retried = 0, 0, 0, 0, 0
local lanes, states = {}, {}
local now = now_ms()

-- Somebody ticks every second. When nobody did, no worker could renew its leases either, and those that were running
-- then say nothing about their jobs. But not for ever: a job may be what brings the whole house down.
local last = tonumber(redis.call('GET', prefix .. 'ticked') or now)
if now - last >= 500 or now == last then redis.call('SET', prefix .. 'ticked', now) end
local pardon_until = redis.call('GET', prefix .. 'pardon')
if now - last > outage_ms then
  pardon_until = now + lease_ms
  redis.call('SET', prefix .. 'pardon', pardon_until)
end

for _, id in ipairs(redis.call('ZRANGE', lease_key, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
  local ended = tonumber(redis.call('ZSCORE', lease_key, id))
  local state, attempts, steps, lane, token =
    unpack(redis.call('HMGET', job_key(id), 'state', 'attempts', 'steps', 'lane', 'token'))
  let_go(id)
  if not state then
    -- Its record is gone, which nothing of ours does: whoever did it, the others must not wait for it.
  elseif state == 'canceling' then
    finish(id, 'canceled')
    canceled = canceled + 1
    lanes[#lanes + 1], states[#states + 1] = lane, 'canceled'
  else
    local pardoned = pardon_until and ended < tonumber(pardon_until) and tonumber(attempts) < max_attempts
    local crashes = redis.call('HINCRBY', job_key(id), 'crashes', pardoned and 0 or 1)
    if crashes >= max_crashes and not pardoned then
      finish(id, 'dead', 'error', problem)
      dead = dead + 1
      lanes[#lanes + 1], states[#states + 1] = lane, 'dead'
    else
      redis.call('HSET', job_key(id), 'lost_steps', steps or 0, 'lost_token', token)
      redis.call('HDEL', job_key(id), 'progress', 'steps', 'token', 'worker')
      enqueue(id)
      requeued = requeued + 1
      if pardoned then blameless = blameless + 1 end
    end
  end
end
for _, id in ipairs(redis.call('ZRANGE', delayed_key, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
  redis.call('ZREM', delayed_key, id)
  if redis.call('EXISTS', job_key(id)) == 1 then
    redis.call('HDEL', job_key(id), 'progress', 'steps', 'token', 'worker')
    enqueue(id)
    retried = retried + 1
  end
end
for _, id in ipairs(redis.call('ZRANGE', cancel_after_key, '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
  redis.call('ZREM', cancel_after_key, id)
  if cancel(id) then
    canceled = canceled + 1
    lanes[#lanes + 1], states[#states + 1] = redis.call('HGET', job_key(id), 'lane'), 'canceled'
  end
end
return {requeued, dead, canceled, retried, blameless, lanes, states}
