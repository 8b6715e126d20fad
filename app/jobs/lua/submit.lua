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
-- What was accepted before is written to once more, so that whoever asks then whether the disk has it (WAITAOF) waits
-- for that.
local function again(earlier)
  redis.call('HSET', job_key(earlier), 'asked_ms', now_ms())
  return {'OK', earlier}
end
if redis.call('EXISTS', job_key(id)) == 1 then return again(id) end
if key ~= '' then
  local earlier, earlier_body = unpack(redis.call('HMGET', idem_key, 'id', 'body'))
  if earlier then
    if earlier_body ~= body then return {'REUSED'} end
    return again(earlier)
  end
end

-- Ms until another place in the lane, or of the tenant's. While it is full, each who is refused is promised the next one
-- after those already promised, as if they stood in line outside. Who has an idempotency key is known by it when they
-- come back: until then, and for KEPT_MS after the promised time, the place is theirs, so that newcomers take no more
-- than what is free beyond those that are due. But at least half of the places are for whoever comes first: many do not
-- come back. The line ends where it is ten times as long as the places inside; who comes then is promised no place.
local KEPT_MS = 5000
local me = key ~= '' and tenant .. ':' .. key
local now = now_ms()

local function my_place(line)
  local promised_ms = me and redis.call('ZSCORE', line, me)
  if promised_ms then return tonumber(promised_ms), tonumber(promised_ms) <= now end
end

local function due_in(line)
  redis.call('ZREMRANGEBYSCORE', line, '-inf', now - KEPT_MS)
  return redis.call('ZCOUNT', line, '-inf', now)
end

local function is_full(line, held, due, most)
  local _, is_mine = my_place(line)
  return held + (is_mine and 0 or math.min(due, math.floor(most / 2))) >= most
end

local function promise(of, line, most, pace)
  local promised_ms, is_due = my_place(line)
  if promised_ms and not is_due then return math.ceil(promised_ms - now) end
  -- Those who come when they are due and find no place, since all went slower than it had, are next: in a line of theirs.
  local last_ms, late_ms = unpack(redis.call('HMGET', of, 'promised_ms', 'late_ms'))
  local after_ms = math.max(now, tonumber(late_ms or 0), is_due and 0 or tonumber(last_ms or 0))
  local free_ms = math.min(after_ms + pace, now + 3600 * 1000)
  redis.call('HSET', of, is_due and 'late_ms' or 'promised_ms', number(free_ms))
  if me and redis.call('ZCARD', line) < 10 * most then
    redis.call('ZADD', line, free_ms, me)
    redis.call('PEXPIRE', line, 3600 * 1000 + KEPT_MS)
  end
  return math.ceil(free_ms - now)
end

-- With a tenth of the places free beyond those that are due, whoever was promised one does not come back for it.
local function enter(of, line, held, due, most)
  if held + due == 0 or held + due + 1 < 0.9 * most then redis.call('HDEL', of, 'promised_ms', 'late_ms') end
  if me then redis.call('ZREM', line, me) end
end

local lane_line, tenant_line = prefix .. 'promised:lane:' .. lane, prefix .. 'promised:tenant:' .. tenant
max_queued, max_open = tonumber(max_queued), tonumber(max_open)
local queued = tonumber(redis.call('HGET', lane_key(lane), 'queued') or 0)
local lane_due = due_in(lane_line)
if is_full(lane_line, queued, lane_due, max_queued) then
  return {'FULL', queued, promise(lane_key(lane), lane_line, max_queued, pace_ms(lane))}
end
local open = tonumber(redis.call('HGET', tenant_key(tenant), 'open') or 0)
local tenant_due = due_in(tenant_line)
if is_full(tenant_line, open, tenant_due, max_open) then
  local others = math.max(1, redis.call('ZCARD', ready_key(lane)))
  return {'TENANT_FULL', open, promise(tenant_key(tenant), tenant_line, max_open, pace_ms(lane) * others)}
end

enter(lane_key(lane), lane_line, queued, lane_due, max_queued)
enter(tenant_key(tenant), tenant_line, open, tenant_due, max_open)
local seq = redis.call('INCR', prefix .. 'seq')
redis.call('HSET', job_key(id), 'tenant', tenant, 'lane', lane, 'priority', priority, 'cost_ms', cost_ms, 'spec', spec,
  'seq', seq, 'attempts', 0, 'crashes', 0, 'submitted_ms', now)
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
