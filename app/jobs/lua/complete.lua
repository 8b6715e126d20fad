#!lua flags=allow-oom
-- ARGV: id, token, result JSON
-- Returns 'OK' (also for a replay by the same token), 'CANCEL' or 'LOST' (fenced: the result is not shown).
local id, token, result = unpack(ARGV)
local word, state = verdict(id, token)
if word == 'OK' then
  finish(id, 'completed', 'result', result)
elseif word == 'LOST' and state == 'completed' and redis.call('HGET', job_key(id), 'token') == token then
  return 'OK'
end
return word
