-- Purpose: who waits, a page at a time.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is priority (0 first), position from which to read, how many
-- Reply:   {us by Redis' clock, entry...}
-- Cost:    O(position + entries)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(3, function(group, a)
  local start = tonumber(ARGV[a + 1])
  local page = redis.call('LRANGE', group.queues[tonumber(ARGV[a]) + 1], start, start + tonumber(ARGV[a + 2]) - 1)
  table.insert(page, 1, int(now))
  return page
end)
