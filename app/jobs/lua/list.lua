#!lua flags=no-writes
-- ARGV: tenant, id to start after or '', most ids, lane or '', most jobs to look at, state, state, ... (none: all)
-- Returns {'OK', id to start the next page after or '' at the end, id, id, ...}, newest first, or {'MISSING'} when the
-- id to start after is not there. Pages start after an id, not at an offset, so that new jobs do not shift them.
local tenant, after, most, lane, most_seen = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local wanted = {}
for i = 6, #ARGV do wanted[ARGV[i]] = true end
local jobs_key = jobs_key(tenant)
local start = 0
if after ~= '' then
  local rank = redis.call('ZREVRANK', jobs_key, after)
  if not rank then return {'MISSING'} end
  start = rank + 1
end
local found, last_seen = {}, ''
for chunk = start, start + most_seen - 1, 100 do
  local ids = redis.call('ZRANGE', jobs_key, chunk, chunk + 99, 'REV')
  for _, id in ipairs(ids) do
    local state, model = unpack(redis.call('HMGET', job_key(id), 'state', 'lane'))
    if state and (#ARGV < 6 or wanted[state]) and (lane == '' or lane == model) then
      if #found == most then return {'OK', found[most], unpack(found)} end
      found[#found + 1] = id
    end
    last_seen = id
  end
  if #ids < 100 then return {'OK', '', unpack(found)} end
end
return {'OK', last_seen, unpack(found)}
