#!lua flags=no-writes
-- ARGV: tenant, id, id, ...
-- Returns for each job its hash as a flat list, with `position` and `start_in_ms` added while it is queued; {} when it is
-- not there or is another tenant's.

local MOST_FLOWS = 32

-- How many jobs of the lane go before this one if none comes any more. Exact among jobs that cost the same; an estimate
-- where more than so many flows are ahead.
local function position_of(id, record)
  local lane, front = record.lane, redis.call('ZRANK', front_key(record.lane), id)
  local suspect = redis.call('ZRANK', suspects_key(lane), id)
  if suspect then return suspect end
  local suspects = redis.call('ZCARD', suspects_key(lane))
  if front then return suspects + front end
  local flow = flow_of(record.priority, record.tenant)
  local own = redis.call('ZRANK', queue_key(lane, flow), id)
  local queued, work_ms = unpack(redis.call('HMGET', lane_key(lane), 'queued', 'work_ms'))
  local mean_ms = math.max(1, work_ms / queued)
  local turn = redis.call('ZSCORE', ready_key(lane), place_of(lane, flow)) + own * toll(flow, mean_ms)
  local function wins_a_tie(other, index)
    if other:sub(1, 1) ~= flow:sub(1, 1) then return other:sub(1, 1) < flow:sub(1, 1) end
    local _, seq = unpack(redis.call('ZRANGE', queue_key(lane, other), index, index, 'WITHSCORES'))
    return seq and tonumber(seq) < tonumber(record.seq)
  end
  local looked_at, before, last = 0, 0, number(turn)
  local places = redis.call('ZRANGE', ready_key(lane), '-inf', last, 'BYSCORE', 'LIMIT', 0, MOST_FLOWS, 'WITHSCORES')
  for i = 1, #places, 2 do
    local other, start = flow_at(places[i]), tonumber(places[i + 1])
    if other ~= flow then
      local step = toll(other, mean_ms)
      local jobs = math.ceil((turn - start) / step)
      if start + jobs * step == turn and wins_a_tie(other, jobs) then jobs = jobs + 1 end
      before = before + math.min(jobs, redis.call('ZCARD', queue_key(lane, other)))
      looked_at = looked_at + 1
    end
  end
  local others = redis.call('ZCOUNT', ready_key(lane), '-inf', last) - 1
  if others > looked_at then before = math.floor(before * others / looked_at) end
  return suspects + redis.call('ZCARD', front_key(lane)) + own + before
end

local records = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local flat = {}
  local names = {'tenant', 'state', 'lane', 'priority', 'seq'}
  local record = {}
  for j, value in ipairs(redis.call('HMGET', job_key(id), unpack(names))) do record[names[j]] = value end
  if record.tenant == ARGV[1] then
    flat = redis.call('HGETALL', job_key(id))
    if record.state == 'queued' then
      local position = position_of(id, record)
      for _, value in ipairs({'position', tostring(position), 'start_in_ms',
        tostring(math.ceil((position + 1) * pace_ms(record.lane)))}) do
        flat[#flat + 1] = value
      end
    end
  end
  records[#records + 1] = flat
end
return records
