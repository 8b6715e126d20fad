#!lua flags=allow-oom
-- ARGV: id, token, error JSON, ms until the first retry or -1 for never, most attempts
-- The second retry waits twice as long, and so on, at most a minute.
-- Returns 'OK' (also for a replay by the same token), 'CANCEL' or 'LOST'.
local id, token, problem, retry_ms, max_attempts = unpack(ARGV)
local word, state = verdict(id, token)
if word == 'OK' then
  local attempts = tonumber(redis.call('HGET', job_key(id), 'attempts'))
  if tonumber(retry_ms) >= 0 and attempts < tonumber(max_attempts) then
    local delay_ms = math.min(retry_ms * 2 ^ (attempts - 1), math.max(60000, tonumber(retry_ms)))
    let_go(id)
    redis.call('HDEL', job_key(id), 'steps', 'lost_steps')
    redis.call('HSET', job_key(id), 'state', 'delayed', 'error', problem)
    redis.call('ZADD', delayed_key, now_ms() + delay_ms, id)
    changed(id)
  else
    finish(id, 'failed', 'error', problem)
  end
elseif word == 'LOST' and (state == 'failed' or state == 'delayed')
  and redis.call('HGET', job_key(id), 'token') == token then
  return 'OK'
end
return word
