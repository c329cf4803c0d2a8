-- Purpose: forgets what a key's limits have counted; those who wait keep their places and may pass at once.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry has the one field 'reset'
-- Reply:   1
-- Cost:    O(limits)
-- @include prelude
-- @include limits
-- @include queue

return run(1, function(group)
  for _, limit in ipairs(group.limits) do
    redis.call('DEL', limit.key)
  end
  return 1
end, function(group)
  nudge(group, true)
end)
