#!lua flags=allow-oom
-- ARGV: ms until anyone may take them, then id, token for each job handed back unfinished
-- Returns a verdict for each: 'OK' (queued again at the front, or delayed; the attempt not counted; also for a replay by
-- the same token while it is queued), 'CANCEL' or 'LOST'. A worker that was only out of reach, and says so before
-- anybody took its job, is heard too: it did not die, and the job is no suspect.
local delay_ms = tonumber(ARGV[1])
local verdicts = {}
for i = 2, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local word, state = verdict(id, token)
  if word == 'OK' then
    let_go(id)
    redis.call('HINCRBY', job_key(id), 'attempts', -1)
    redis.call('HDEL', job_key(id), 'progress', 'steps', 'lost_steps', 'worker')
    if delay_ms > 0 then
      redis.call('HSET', job_key(id), 'state', 'delayed')
      redis.call('ZADD', delayed_key, now_ms() + delay_ms, id)
      changed(id)
      -- Whoever cannot read it has an empty hand and no reason to ask again soon, though others wait behind it.
      redis.call('PUBLISH', prefix .. 'wake', redis.call('HGET', job_key(id), 'lane'))
    else
      enqueue(id)
    end
  elseif word == 'LOST' and state == 'queued' and redis.call('HGET', job_key(id), 'token') == token then
    word = 'OK'
  elseif word == 'LOST' and state == 'queued' and redis.call('HGET', job_key(id), 'lost_token') == token then
    dequeue(id)
    if tonumber(redis.call('HGET', job_key(id), 'crashes')) > 0 then redis.call('HINCRBY', job_key(id), 'crashes', -1) end
    redis.call('HINCRBY', job_key(id), 'attempts', -1)
    redis.call('HDEL', job_key(id), 'lost_token', 'kept_for', 'kept_until_ms')
    redis.call('HSET', job_key(id), 'token', token)
    enqueue(id)
    word = 'OK'
  end
  verdicts[#verdicts + 1] = word
end
return verdicts
