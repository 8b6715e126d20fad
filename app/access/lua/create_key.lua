#!lua
-- KEYS[1]: the prefix of app/jobs/keys.py. ARGV: id, tenant, most active keys, then names and values in turn.
-- Returns 0 and keeps nothing when the tenant has as many active keys already.
local prefix, id, tenant = KEYS[1], ARGV[1], ARGV[2]
local of_tenant = prefix .. 'keys:' .. tenant
local active = 0
for _, other in ipairs(redis.call('ZRANGE', of_tenant, 0, -1)) do
  if redis.call('HEXISTS', prefix .. 'key:' .. other, 'revoked_ms') == 0 then active = active + 1 end
end
if active >= tonumber(ARGV[3]) then return 0 end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', prefix .. 'key:' .. id, 'tenant', tenant, 'created_ms', now_ms, unpack(ARGV, 4))
redis.call('ZADD', of_tenant, now_ms, id)
redis.call('ZADD', prefix .. 'keys', now_ms, id)
return 1
