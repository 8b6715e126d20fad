-- Shared by every script. KEYS[1] is the prefix of app/jobs/keys.py: it puts the script in the queue's cluster slot.
local prefix = KEYS[1]
local function job_key(id) return prefix .. 'job:' .. id end
local function lane_key(lane) return prefix .. 'lane:' .. lane end
local function tenant_key(tenant) return prefix .. 'tenant:' .. tenant end
local function jobs_key(tenant) return prefix .. 'jobs:' .. tenant end
local function queue_key(lane, flow) return prefix .. 'queue:' .. lane .. ':' .. flow end
local function ready_key(lane) return prefix .. 'ready:' .. lane end
local function front_key(lane) return prefix .. 'front:' .. lane end
local function suspects_key(lane) return prefix .. 'suspects:' .. lane end
local function debts_key(lane) return prefix .. 'debts:' .. lane end
local lanes_key, lease_key, delayed_key, dead_key, ended_key, totals_key, clocks_key, cancel_after_key =
  prefix .. 'lanes', prefix .. 'lease', prefix .. 'delayed', prefix .. 'dead', prefix .. 'ended', prefix .. 'totals',
  prefix .. 'clocks', prefix .. 'cancel_after'

-- The one clock of the whole system, in milliseconds.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function changed(id) redis.call('PUBLISH', prefix .. 'changed', id) end

-- Start-time fair queueing (Goyal, Vin and Cheng, 1996). A flow is one tenant's jobs of one priority: '<rank>:<tenant>'.
-- Its start is the virtual time at which its next job may begin; a job taken moves it on by cost / weight, and the
-- virtual clock is the start of the job taken last. So whoever got least for their weight comes next, a newcomer starts
-- at the clock, and nobody waits for ever: that is how priorities age. Each lane has a clock of its own, since each goes
-- as fast as its workers and its flows let it; those that one worker serves go on together (claim.lua).
-- Virtual time is in whole 1/1024 ms: what is equal stays equal.
local ranks, shares = {high = '1', normal = '2', low = '3'}, {['1'] = 64, ['2'] = 8, ['3'] = 1}

local function number(value) return string.format('%.17g', value) end
local function clock(lane) return tonumber(redis.call('HGET', clocks_key, lane) or 0) end
local function flow_of(priority, tenant) return ranks[priority] .. ':' .. tenant end
local function toll(flow, cost_ms)
  local weight = shares[flow:sub(1, 1)] * tonumber(redis.call('HGET', prefix .. 'weights', flow:sub(3)) or 1)
  return math.max(1, math.floor(1024 * cost_ms / weight + 0.5))
end
local function debt(lane, flow)
  return math.max(clock(lane), tonumber(redis.call('ZSCORE', debts_key(lane), flow) or 0))
end

-- Where a flow stands in a lane: '<rank>:<seq of its first job>:<tenant>', so that of flows with the same start the one
-- with the higher priority comes first, then the one that is older. Nil when none of its jobs waits there.
local function place_of(lane, flow)
  local id, seq = unpack(redis.call('ZRANGE', queue_key(lane, flow), 0, 0, 'WITHSCORES'))
  if id then return string.format('%s:%016d:%s', flow:sub(1, 1), seq, flow:sub(3)) end
end
local function flow_at(place) return place:sub(1, 2) .. place:sub(20), tonumber(place:sub(3, 18)) end

local function count(lane, jobs, work_ms, priority)
  local queued = redis.call('HINCRBY', lane_key(lane), 'queued', jobs)
  if queued == 0 then redis.call('HDEL', lane_key(lane), 'last_ms') end -- until the next comes, nothing is slow
  redis.call('HINCRBY', lane_key(lane), 'work_ms', work_ms)
  redis.call('HINCRBY', lane_key(lane), priority, jobs)
end

local function hold(id, lease_ends)
  redis.call('HINCRBY', lane_key(redis.call('HGET', job_key(id), 'lane')), 'held', redis.call('ZADD', lease_key, lease_ends, id))
end

local function let_go(id)
  local lane, held = redis.call('HGET', job_key(id), 'lane'), redis.call('ZREM', lease_key, id)
  if lane then redis.call('HINCRBY', lane_key(lane), 'held', -held) end
end

-- How long a lane takes from one claim to the next while jobs wait in it, over the last half minute or so. Until that
-- was seen: what its jobs cost, shared by the workers.
local function decayed(lane, now)
  local claims, busy_ms, last_ms = unpack(redis.call('HMGET', lane_key(lane), 'pace_claims', 'pace_ms', 'last_ms'))
  -- Who waits longer than a minute waits for a worker to come, which tells nothing of its pace.
  local since_ms = last_ms and math.min(60000, math.max(0, now - tonumber(last_ms))) or 0
  local fade = math.exp(-since_ms / 30000)
  return tonumber(claims or 0) * fade, tonumber(busy_ms or 0) * fade + since_ms, last_ms
end

local function pace_ms(lane)
  local claims, busy_ms, last_ms = decayed(lane, now_ms())
  if claims > 0.5 then return math.max(1, busy_ms / (claims + (last_ms and 0.5 or 0))) end
  local queued, work_ms = unpack(redis.call('HMGET', lane_key(lane), 'queued', 'work_ms'))
  if tonumber(queued or 0) == 0 then return 1000 end
  return math.max(1, work_ms / queued / math.max(1, redis.call('SCARD', prefix .. 'workers')))
end

local function note_pace(lane, now)
  local claims, busy_ms, last_ms = decayed(lane, now)
  if last_ms then
    redis.call('HSET', lane_key(lane), 'pace_claims', number(claims + 1), 'pace_ms', number(busy_ms))
  end
  if tonumber(redis.call('HGET', lane_key(lane), 'queued')) > 0 then redis.call('HSET', lane_key(lane), 'last_ms', now) end
end

-- Put a job in line: a new one in its flow, one that was taken before at the front (it has paid), and one whose worker
-- died among the suspects, which run alone. Each of the three is ordered by submission.
local function enqueue(id)
  local lane, tenant, priority, seq, cost_ms, started, crashes =
    unpack(redis.call('HMGET', job_key(id), 'lane', 'tenant', 'priority', 'seq', 'cost_ms', 'started_ms', 'crashes'))
  redis.call('HSET', job_key(id), 'state', 'queued')
  redis.call('SADD', lanes_key, lane)
  if tonumber(crashes) > 0 then
    redis.call('ZADD', suspects_key(lane), seq, id)
  elseif started then
    redis.call('ZADD', front_key(lane), seq, id)
  else
    local flow = flow_of(priority, tenant)
    redis.call('ZADD', queue_key(lane, flow), seq, id)
    if redis.call('ZCARD', queue_key(lane, flow)) == 1 then
      redis.call('ZADD', ready_key(lane), number(debt(lane, flow)), place_of(lane, flow))
      redis.call('ZREM', debts_key(lane), flow)
    end
  end
  count(lane, 1, cost_ms, priority)
  redis.call('PUBLISH', prefix .. 'wake', lane)
  changed(id)
end

-- Take a job out of line, wherever it stands there.
local function dequeue(id)
  local lane, tenant, priority, cost_ms =
    unpack(redis.call('HMGET', job_key(id), 'lane', 'tenant', 'priority', 'cost_ms'))
  count(lane, -1, -cost_ms, priority)
  if redis.call('ZREM', suspects_key(lane), id) == 1 or redis.call('ZREM', front_key(lane), id) == 1 then return end
  local flow = flow_of(priority, tenant)
  local place = place_of(lane, flow)
  redis.call('ZREM', queue_key(lane, flow), id)
  local next_place = place_of(lane, flow)
  if next_place == place then return end
  local start = redis.call('ZSCORE', ready_key(lane), place)
  redis.call('ZREM', ready_key(lane), place)
  if next_place then
    redis.call('ZADD', ready_key(lane), start, next_place)
  elseif tonumber(start) > clock(lane) then
    redis.call('ZADD', debts_key(lane), start, flow)
  end
end

-- Put an end to a job. Whoever calls this has taken it out of line.
local function finish(id, state, ...)
  local now = now_ms()
  local tenant, cost_ms = unpack(redis.call('HMGET', job_key(id), 'tenant', 'cost_ms'))
  let_go(id)
  redis.call('HDEL', job_key(id), 'error') -- of an earlier attempt
  redis.call('HSET', job_key(id), 'state', state, 'finished_ms', now, ...)
  redis.call('ZADD', state == 'dead' and dead_key or ended_key, now, id)
  redis.call('ZREM', cancel_after_key, id)
  redis.call('HINCRBY', tenant_key(tenant), 'open', -1)
  redis.call('HINCRBY', tenant_key(tenant), 'work_ms', -cost_ms)
  redis.call('HINCRBY', totals_key, state, 1)
  changed(id)
end

-- Cancel a job wherever it is. True: it waited, and this ended it; what a worker holds is left to that worker, and what
-- is over stays as it is.
local function cancel(id)
  local state = redis.call('HGET', job_key(id), 'state')
  if state == 'queued' then
    dequeue(id)
    finish(id, 'canceled')
    return true
  elseif state == 'delayed' then
    redis.call('ZREM', delayed_key, id)
    finish(id, 'canceled')
    return true
  elseif state == 'in_progress' then
    redis.call('HSET', job_key(id), 'state', 'canceling')
    changed(id)
  end
  return false
end

-- Leave nothing of a job that is over.
local function forget(id)
  local tenant, idem = unpack(redis.call('HMGET', job_key(id), 'tenant', 'idem'))
  redis.call('DEL', job_key(id))
  redis.call('ZREM', jobs_key(tenant), id)
  redis.call('ZREM', ended_key, id)
  redis.call('ZREM', dead_key, id)
  redis.call('ZREM', prefix .. 'expired', id)
  if idem and redis.call('HGET', prefix .. 'idem:' .. tenant .. ':' .. idem, 'id') == id then
    redis.call('DEL', prefix .. 'idem:' .. tenant .. ':' .. idem)
  end
end

-- What a worker may do with a job it believes it holds: 'OK' go on, 'CANCEL' stop, it is canceled now,
-- 'LOST' stop, it is somebody else's or over.
local function verdict(id, token)
  local state, held_by = unpack(redis.call('HMGET', job_key(id), 'state', 'token'))
  if held_by ~= token then return 'LOST', state end
  if state == 'canceling' then
    finish(id, 'canceled')
    return 'CANCEL', state
  end
  if state == 'canceled' then return 'CANCEL', state end
  if state ~= 'in_progress' then return 'LOST', state end
  return 'OK', state
end
