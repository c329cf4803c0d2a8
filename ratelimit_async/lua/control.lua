-- Purpose: what is paused by name, and what is configured at run time, in every process.
-- KEYS:    the hash of it all: 'p:name' -> until when, us, or -1; 'c:name' or 'c:name:by' -> configuration, JSON;
--          'version' -> a number that rises with every change
-- ARGV:    op (pause, configure or read), field, value, prefix of the reply channels, version known
--          pause: us (-1: until resumed; 0: resume); configure: JSON, '' to remove
-- Reply:   {version, field, value, ...}, or {version} where the version is the one known
-- Cost:    O(fields)

-- It outlives the processes that know of it, but not for ever.
local LIFE = 30 * 24 * 3600 * 1000

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local key, op, field, value, channels, known = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local function int(number)
  return string.format('%.0f', number)
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
elseif op ~= 'read' then
  redis.call('HDEL', key, field)
end
if op ~= 'read' then
  -- By the clock, so that it also rises after Redis has forgotten all.
  local old = tonumber(redis.call('HGET', key, 'version')) or 0
  redis.call('HSET', key, 'version', int(math.max(old + 1, now)))
  redis.call('PUBLISH', channels .. 'all', 'c')
end
redis.call('PEXPIRE', key, LIFE)
local version = redis.call('HGET', key, 'version') or '0'
if version == known then
  return { version }
end
local reply, fields = { version }, redis.call('HGETALL', key)
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
