#!lua flags=allow-oom
-- ARGV: id, token, progress JSON, steps taken for each job held
-- Returns a verdict for each: 'OK' (written), 'CANCEL' or 'LOST'. Does not extend a lease: only `renew` does.
local verdicts = {}
for i = 1, #ARGV, 4 do
  local word = verdict(ARGV[i], ARGV[i + 1])
  if word == 'OK' then
    redis.call('HSET', job_key(ARGV[i]), 'progress', ARGV[i + 2], 'steps', ARGV[i + 3])
    changed(ARGV[i])
  end
  verdicts[#verdicts + 1] = word
end
return verdicts
