-- Purpose: adds up anew what is held, after the units that are have changed.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry has the one field 'recount'
-- Reply:   1
-- Cost:    O(1), and O(held) for the next script that needs the sums
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(1, function(group)
  redis.call('ZREMRANGEBYSCORE', group.held, '-inf', 0)
  return 1
end)
