#!lua flags=no-writes
-- ARGV: id, id, ...
-- Returns for each job whose bytes those in the store are: {'open', token or '', expired 0 or 1}, {'completed', ...},
-- {'ended', ...} or {} when there is no such job.
local holders = {}
for _, id in ipairs(ARGV) do
  local state, token, expired_ms = unpack(redis.call('HMGET', job_key(id), 'state', 'token', 'expired_ms'))
  local holder = {}
  if state then
    local ended = state == 'failed' or state == 'dead' or state == 'canceled'
    holder = {ended and 'ended' or state == 'completed' and 'completed' or 'open', token or '', expired_ms and 1 or 0}
  end
  holders[#holders + 1] = holder
end
return holders
