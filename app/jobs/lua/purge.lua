#!lua flags=allow-oom
-- ARGV: tenant, id, id, ...
-- Forgets jobs that are over. Returns for each 'OK', 'OPEN' (not over: left as it is) or 'MISSING' (also for another
-- tenant's).
local answers = {}
for i = 2, #ARGV do
  local state, owner = unpack(redis.call('HMGET', job_key(ARGV[i]), 'state', 'tenant'))
  local answer = 'OPEN'
  if owner ~= ARGV[1] then
    answer = 'MISSING'
  elseif state == 'completed' or state == 'failed' or state == 'dead' or state == 'canceled' then
    forget(ARGV[i])
    answer = 'OK'
  end
  answers[#answers + 1] = answer
end
return answers
