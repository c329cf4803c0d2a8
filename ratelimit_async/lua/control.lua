-- Purpose: what is paused by name, and what is configured at run time, in every process; who is alive.
-- KEYS:    the hash of it all: 'p:name' -> until when, us, or -1; 'c:name' or 'c:name:by' -> configuration, JSON;
--          'version' -> a number that rises with every change
--          the clients that are alive: id -> until when, us
-- ARGV:    op (pause, configure, read or leave), field, value, prefix of the reply channels, version known, client,
--          us that it counts as alive from now on, 0 for one that only looks and never counts
--          pause: us (-1: until resumed; 0: resume); configure: JSON, '' to remove
-- Reply:   {version, clients alive, field, value, ...}, or the first two where the version is the one known
-- Cost:    O(fields + log clients)

-- It outlives the processes that know of it, but not for ever.
local LIFE = 30 * 24 * 3600 * 1000
-- So few are told at once that there is one more; among many, one more changes little, and they hear of it in time.
local FEW = 8

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, op, field, value, channels, known = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local clients, client, lease = KEYS[2], ARGV[6], tonumber(ARGV[7])

local function int(number)
  return string.format('%.0f', number)
end

redis.call('ZREMRANGEBYSCORE', clients, '-inf', int(now))
local came = 0
if op == 'leave' then
  redis.call('ZREM', clients, client)
elseif lease > 0 then
  came = redis.call('ZADD', clients, int(now + lease), client)
  redis.call('PEXPIRE', clients, math.ceil(lease / 1000))
end
local alive = redis.call('ZCARD', clients)
if came == 1 and alive > 1 and alive <= FEW then
  redis.call('PUBLISH', channels .. 'all', 'c')
end

if op == 'pause' and value ~= '0' then
  local old = tonumber(redis.call('HGET', key, field) or 0)
  local us = tonumber(value)
  local pause = us < 0 and -1 or now + us
  -- A longer pause, or one without end, is not cut short by a shorter one.
  if us < 0 or (old >= 0 and pause > old) then
    redis.call('HSET', key, field, int(pause))
  end
elseif op == 'configure' and value ~= '' then
  redis.call('HSET', key, field, value)
elseif op == 'pause' or op == 'configure' then
  redis.call('HDEL', key, field)
end
if op == 'pause' or op == 'configure' then
  -- By the clock, so that it also rises after Redis has forgotten all.
  local old = tonumber(redis.call('HGET', key, 'version')) or 0
  redis.call('HSET', key, 'version', int(math.max(old + 1, now)))
  redis.call('PUBLISH', channels .. 'all', 'c')
end
redis.call('PEXPIRE', key, LIFE)
local version = redis.call('HGET', key, 'version') or '0'
if version == known then
  return { version, alive }
end
local reply, fields = { version, alive }, redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local name, content = fields[i], fields[i + 1]
  local is_pause, ends = string.sub(name, 1, 2) == 'p:', tonumber(content)
  local over = is_pause and (not ends or ends >= 0 and ends <= now)
  if over then
    redis.call('HDEL', key, name)
  elseif name ~= 'version' then
    reply[#reply + 1] = name
    reply[#reply + 1] = content
  end
end
return reply
