#!lua flags=allow-oom
-- ARGV: id, token for each job handed back unfinished
-- Returns a verdict for each: 'OK' (queued again in its old place, the attempt not counted; also for a replay by the
-- same token while nobody else took it), 'CANCEL' or 'LOST'.
local verdicts = {}
for i = 1, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local word, state = verdict(id, token)
  if word == 'OK' then
    redis.call('ZREM', lease_key, id)
    redis.call('HINCRBY', job_key(id), 'attempts', -1)
    redis.call('HDEL', job_key(id), 'progress', 'worker')
    enqueue(id)
  elseif word == 'LOST' and state == 'queued' and redis.call('HGET', job_key(id), 'token') == token then
    word = 'OK'
  end
  verdicts[#verdicts + 1] = word
end
return verdicts
