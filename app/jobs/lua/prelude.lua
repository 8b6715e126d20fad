-- Shared by every script. KEYS[1] is the prefix of app/jobs/keys.py: it puts the script in the queue's cluster slot.
local prefix = KEYS[1]
local function job_key(id) return prefix .. 'job:' .. id end
local function queue_key(lane) return prefix .. 'queue:' .. lane end
local lanes_key, lease_key, delayed_key, dead_key =
  prefix .. 'lanes', prefix .. 'lease', prefix .. 'delayed', prefix .. 'dead'

-- The one clock of the whole system, in milliseconds.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A job keeps its first place in line, so one that lost its worker goes to the front.
local function enqueue(id)
  local lane, seq = unpack(redis.call('HMGET', job_key(id), 'lane', 'seq'))
  redis.call('HSET', job_key(id), 'state', 'queued')
  redis.call('ZADD', queue_key(lane), seq, id)
  redis.call('SADD', lanes_key, lane)
  redis.call('PUBLISH', prefix .. 'wake', lane)
end

local function finish(id, state, ...)
  redis.call('ZREM', lease_key, id)
  redis.call('HDEL', job_key(id), 'error') -- of an earlier attempt
  redis.call('HSET', job_key(id), 'state', state, 'finished_ms', now_ms(), ...)
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
