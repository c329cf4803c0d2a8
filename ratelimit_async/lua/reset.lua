-- Purpose: forgets what a key's limits have counted, but not what runs; those who wait keep their places and may
--          pass at once.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry has the one field 'reset'
-- Reply:   1
-- Cost:    O(limits)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(1, function(group)
  watch(group)
  for _, limit in ipairs(group.limits) do
    if limit.key then
      redis.call('DEL', limit.key)
    end
  end
  -- By whoever remembers, be it that this one does not.
  group.freed, group.cached = true, true
  return 1
end, function(group)
  nudge(group)
end)
