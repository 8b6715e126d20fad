#!lua flags=allow-oom
-- ARGV: token, worker, most jobs to take, lease in ms, lane, lane, ...
-- Returns {{id, spec, ms since it was submitted, 1 if it was started before, else 0}, ...}, oldest first over all the
-- lanes. The same token returns the same jobs again, as long as one of them is held, as started before, and with their
-- leases begun anew: the worker counts from when it asked last.
local token, worker, most, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local claim_key = prefix .. 'claim:' .. token
local now = now_ms()
local claimed = {}
local function tell(id, started_before)
  local spec, submitted_ms = unpack(redis.call('HMGET', job_key(id), 'spec', 'submitted_ms'))
  claimed[#claimed + 1] = {id, spec, now - tonumber(submitted_ms), started_before}
end
for _, id in ipairs(redis.call('LRANGE', claim_key, 0, -1)) do
  if verdict(id, token) == 'OK' then
    redis.call('ZADD', lease_key, 'XX', now + lease_ms, id)
    tell(id, 1)
  end
end
if #claimed > 0 then
  redis.call('PEXPIRE', claim_key, lease_ms)
  return claimed
end
redis.call('DEL', claim_key)

while #claimed < most do
  local first_id, first_seq, first_lane
  for i = 5, #ARGV do
    local id, seq = unpack(redis.call('ZRANGE', queue_key(ARGV[i]), 0, 0, 'WITHSCORES'))
    if id and (not first_seq or tonumber(seq) < first_seq) then
      first_id, first_seq, first_lane = id, tonumber(seq), ARGV[i]
    end
  end
  if not first_id then break end
  redis.call('ZREM', queue_key(first_lane), first_id)
  redis.call('HSET', job_key(first_id), 'state', 'in_progress', 'token', token, 'worker', worker)
  local is_first = redis.call('HSETNX', job_key(first_id), 'started_ms', now)
  redis.call('HINCRBY', job_key(first_id), 'attempts', 1)
  redis.call('ZADD', lease_key, now + lease_ms, first_id)
  redis.call('RPUSH', claim_key, first_id)
  tell(first_id, 1 - is_first)
end
if #claimed > 0 then redis.call('PEXPIRE', claim_key, lease_ms) end
return claimed
