#!lua flags=allow-oom
-- ARGV: token, worker, most jobs to take, lease in ms, 1 if the worker holds nothing else 0, lane, lane, ...
-- Returns {{id, spec, ms since it was submitted, 1 if it was started before else 0, 1 if it must run alone else 0, steps
-- its last worker had taken}, ...}.
-- The same token returns the same jobs again, as far as they are held, as started before, and with their leases begun
-- anew: the worker counts from when it asked last. It never takes others, so that a claim which arrives late, when its
-- worker has long asked again, takes nothing that nobody knows of.
local token, worker, most, lease_ms, idle = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local claim_key = prefix .. 'claim:' .. token
local now = now_ms()
local claimed = {}
local function tell(id, started_before)
  local spec, submitted_ms, crashes, lost_steps =
    unpack(redis.call('HMGET', job_key(id), 'spec', 'submitted_ms', 'crashes', 'lost_steps'))
  local alone = tonumber(crashes) > 0 and 1 or 0
  claimed[#claimed + 1] = {id, spec, now - tonumber(submitted_ms), started_before, alone, tonumber(lost_steps or 0)}
end
if redis.call('EXISTS', claim_key) == 1 then
  for _, id in ipairs(redis.call('LRANGE', claim_key, 1, -1)) do
    if verdict(id, token) == 'OK' then
      redis.call('ZADD', lease_key, 'XX', now + lease_ms, id)
      tell(id, 1)
    end
  end
  redis.call('PEXPIRE', claim_key, lease_ms)
  return claimed
end
redis.call('RPUSH', claim_key, 'known')
redis.call('PEXPIRE', claim_key, lease_ms)

local function take(id)
  dequeue(id)
  redis.call('HDEL', job_key(id), 'kept_for', 'kept_until_ms', 'lost_token')
  redis.call('HSET', job_key(id), 'state', 'in_progress', 'token', token, 'worker', worker)
  local is_first = redis.call('HSETNX', job_key(id), 'started_ms', now)
  redis.call('HINCRBY', job_key(id), 'attempts', 1)
  hold(id, now + lease_ms)
  redis.call('RPUSH', claim_key, id)
  tell(id, 1 - is_first)
  changed(id)
end

-- A suspect goes first, to a worker that holds nothing. One that is busy gets no more until it is done; the suspect is
-- kept for it meanwhile, so that the other workers go on.
local function next_suspect()
  local suspect, suspect_seq
  for i = 6, #ARGV do
    local waiting = redis.call('ZRANGE', suspects_key(ARGV[i]), 0, 31, 'WITHSCORES')
    for j = 1, #waiting, 2 do
      local id, seq = waiting[j], tonumber(waiting[j + 1])
      local kept_for, kept_until_ms = unpack(redis.call('HMGET', job_key(id), 'kept_for', 'kept_until_ms', 'lost_token'))
      local free = idle or not kept_for or kept_for == worker or tonumber(kept_until_ms) < now
      if free and (not suspect or seq < suspect_seq) then suspect, suspect_seq = id, seq end
    end
  end
  return suspect
end

local function next_at_the_front()
  local first, first_seq
  for i = 6, #ARGV do
    local id, seq = unpack(redis.call('ZRANGE', front_key(ARGV[i]), 0, 0, 'WITHSCORES'))
    if id and (not first or tonumber(seq) < first_seq) then first, first_seq = id, tonumber(seq) end
  end
  return first
end

-- The first job of the flow that is least ahead of its lane's clock, of one with the higher priority, of one that is
-- older.
local function next_in_turn()
  local best
  for i = 6, #ARGV do
    local lane = ARGV[i]
    local place, start = unpack(redis.call('ZRANGE', ready_key(lane), 0, 0, 'WITHSCORES'))
    if place then
      local flow, seq = flow_at(place)
      local it = {lane = lane, flow = flow, lead = tonumber(start) - clock(lane), rank = flow:sub(1, 1), seq = seq}
      if not best or it.lead < best.lead
        or it.lead == best.lead and (it.rank < best.rank or it.rank == best.rank and it.seq < best.seq) then
        best = it
      end
    end
  end
  if best then best.id = redis.call('ZRANGE', queue_key(best.lane, best.flow), 0, 0)[1] end
  return best
end

-- All lanes of this worker go on together: there was nothing in any of them that was less ahead. What a flow got from it
-- counts in each.
local function charge(it)
  local cost = toll(it.flow, redis.call('HGET', job_key(it.id), 'cost_ms'))
  for i = 6, #ARGV do
    local lane = ARGV[i]
    if it.lead > 0 then
      local time = number(clock(lane) + it.lead)
      redis.call('HSET', clocks_key, lane, time)
      redis.call('ZREMRANGEBYSCORE', debts_key(lane), '-inf', time)
    end
    local place = place_of(lane, it.flow)
    if place then
      redis.call('ZINCRBY', ready_key(lane), cost, place)
    else
      redis.call('ZADD', debts_key(lane), number(debt(lane, it.flow) + cost), it.flow)
    end
  end
end

-- After a suspect the worker has as long for the others, at most a minute: suspects may be many, and each of them slow.
local function its_turn_is_over()
  local round_key = prefix .. 'round:' .. worker
  local taken_ms, rest_until_ms = unpack(redis.call('HMGET', round_key, 'taken_ms', 'rest_until_ms'))
  if taken_ms then
    rest_until_ms = now + math.min(60, math.floor((now - tonumber(taken_ms)) / 1000)) * 1000
    redis.call('HDEL', round_key, 'taken_ms')
    redis.call('HSET', round_key, 'rest_until_ms', rest_until_ms)
    redis.call('PEXPIRE', round_key, 61000)
  end
  return rest_until_ms and now < tonumber(rest_until_ms) and (next_at_the_front() or next_in_turn())
end

local suspect = next_suspect()
if suspect and its_turn_is_over() then suspect = nil end
if suspect and not idle then
  redis.call('HSET', job_key(suspect), 'kept_for', worker, 'kept_until_ms', now + lease_ms)
  return claimed
end
if suspect then
  take(suspect)
  redis.call('HSET', prefix .. 'round:' .. worker, 'taken_ms', now)
  redis.call('PEXPIRE', prefix .. 'round:' .. worker, 3600 * 1000)
  note_pace(redis.call('HGET', job_key(suspect), 'lane'), now)
  return claimed
end
while #claimed < most do
  local id = next_at_the_front()
  if id then
    take(id)
  else
    local it = next_in_turn()
    if not it then break end
    take(it.id)
    charge(it)
  end
end
for _, row in ipairs(claimed) do note_pace(redis.call('HGET', job_key(row[1]), 'lane'), now) end
return claimed
