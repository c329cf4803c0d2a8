-- Purpose: stops a key's grants and hits for a time, for ever, or no longer.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is us to pause (-1: until resumed; 0: resume)
-- Reply:   1
-- Cost:    O(1)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

-- A pause outlives the processes that know of it, but not for ever.
local LIFE = 30 * 24 * 3600 * 1000

return run(1, function(group, a)
  local us = tonumber(ARGV[a])
  watch(group)
  if us == 0 then
    redis.call('DEL', group.pause)
  else
    local own = tonumber(redis.call('GET', group.pause) or 0)
    -- A longer pause, or one without end, is not cut short by a shorter one.
    if us < 0 then
      redis.call('SET', group.pause, '-1', 'PX', LIFE)
      be_seen(group, LIFE)
    elseif own >= 0 and now + us > own then
      local life = math.ceil(us / 1000) + 1000
      redis.call('SET', group.pause, int(now + us), 'PX', int(life))
      be_seen(group, life)
    end
  end
  group.quiet, group.own_pause = nil, nil
  group.freed = true
  return 1
end, function(group)
  nudge(group)
end)
