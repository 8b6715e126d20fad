#!lua flags=allow-oom
-- KEYS[1]: the prefix of app/jobs/keys.py. ARGV: a zset's name, most, ms.
-- Returns the job ids that are due, oldest first, and makes them due again after so many ms.
local key = KEYS[1] .. ARGV[1]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', key, '-inf', now_ms, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do redis.call('ZADD', key, 'XX', now_ms + ARGV[3], id) end
return due
