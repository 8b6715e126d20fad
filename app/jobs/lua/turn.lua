#!lua flags=allow-oom
-- ARGV: what, ms until it is somebody's turn again
-- Returns 1 for whoever comes first, else 0. Also when memory is full: what is done by turns makes room.
return redis.call('SET', prefix .. 'turn:' .. ARGV[1], 'taken', 'NX', 'PX', ARGV[2]) and 1 or 0
