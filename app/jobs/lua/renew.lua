#!lua flags=allow-oom
-- ARGV: lease in ms, then id, token for each job held
-- Returns a verdict for each: 'OK' (lease extended), 'CANCEL' or 'LOST'.
local verdicts = {}
local lease_ends = now_ms() + tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  local word = verdict(id, ARGV[i + 1])
  if word == 'OK' then redis.call('ZADD', lease_key, 'XX', lease_ends, id) end
  verdicts[#verdicts + 1] = word
end
return verdicts
