#!lua
-- ARGV: tenant, weight
-- From now on its jobs cost it 1 / weight of their time.
redis.call('HSET', prefix .. 'weights', ARGV[1], ARGV[2])
