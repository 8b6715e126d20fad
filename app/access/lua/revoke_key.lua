#!lua flags=allow-oom
-- KEYS[1]: the prefix of app/jobs/keys.py. ARGV: id.
-- Returns 0 when there is no such key. A key that was revoked keeps its first time.
local key = KEYS[1] .. 'key:' .. ARGV[1]
if redis.call('EXISTS', key) == 0 then return 0 end
local time = redis.call('TIME')
redis.call('HSETNX', key, 'revoked_ms', time[1] * 1000 + math.floor(time[2] / 1000))
return 1
