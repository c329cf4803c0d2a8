-- Purpose: which names and keys are paused, in every process.
-- KEYS:    the hash of the paused
-- ARGV:    op (pause, resume or read), field, prefix of the reply channels
-- Reply:   the paused fields
-- Cost:    O(paused)

-- A pause outlives the processes that know of it, but not for ever.
local LIFE = 30 * 24 * 3600 * 1000

if ARGV[1] == 'pause' then
  redis.call('HSET', KEYS[1], ARGV[2], 1)
elseif ARGV[1] == 'resume' then
  redis.call('HDEL', KEYS[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], LIFE)
if ARGV[1] ~= 'read' then
  redis.call('PUBLISH', ARGV[3] .. 'all', 'p')
end
return redis.call('HKEYS', KEYS[1])
