#!lua flags=allow-oom
-- ARGV: ms that pictures are kept after a job's end, ms that its record is kept after them, most jobs to move
-- Returns {how many records had their time and are forgotten, id whose pictures are to be deleted now, ...}.
local pictures_ms, record_ms, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
local expired_key = prefix .. 'expired'
local old = redis.call('ZRANGE', expired_key, '-inf', now - record_ms, 'BYSCORE', 'LIMIT', 0, most)
for _, id in ipairs(old) do forget(id) end
local ids = redis.call('ZRANGE', ended_key, '-inf', now - pictures_ms, 'BYSCORE', 'LIMIT', 0, most)
for _, id in ipairs(ids) do
  redis.call('ZREM', ended_key, id)
  redis.call('ZADD', expired_key, now, id)
  redis.call('HSET', job_key(id), 'expired_ms', now)
  changed(id)
end
return {#old, unpack(ids)}
