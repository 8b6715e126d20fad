#!lua flags=allow-oom
-- KEYS[1]: the prefix of app/jobs/keys.py. ARGV: a zset's name, job id, ms. Makes it due in so many ms, if it is there.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZADD', KEYS[1] .. ARGV[1], 'XX', now_ms + ARGV[3], ARGV[2])
