#!lua flags=no-writes
-- ARGV: tenant, id, id, ...
-- Returns for each job its hash as a flat list, with `position` added while it is queued; {} when it is not there or
-- is another tenant's.
local records = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local record = {}
  if redis.call('HGET', job_key(id), 'tenant') == ARGV[1] then
    record = redis.call('HGETALL', job_key(id))
    local place = redis.call('ZRANK', queue_key(redis.call('HGET', job_key(id), 'lane')), id)
    if place then
      record[#record + 1] = 'position'
      record[#record + 1] = tostring(place)
    end
  end
  records[#records + 1] = record
end
return records
