-- Purpose: which limit keys have durable tasks, for workers that start later.
-- KEYS:    a sorted set: label of the key -> when a task was last submitted to it, us
-- ARGV:    op (add, read or remove), label ('' for read), start (read), age (remove: us since the last submission at least)
-- Reply:   read: {label...}, at most 500 from `start` on; otherwise 1
-- Cost:    O(log labels); read O(what is told)

local LIFE = 30 * 24 * 3600 * 1000
local PAGE = 500

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, op, label, start, age = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

if op == 'read' then
  return redis.call('ZRANGE', key, start, start + PAGE - 1)
elseif op == 'add' then
  redis.call('ZADD', key, string.format('%.0f', now), label)
  redis.call('PEXPIRE', key, LIFE)
else
  local since = redis.call('ZSCORE', key, label)
  if since and tonumber(since) + age <= now then
    redis.call('ZREM', key, label)
  end
end
return 1
