-- Purpose: a process that leaves gives up driving, so that another takes over at once.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry has the one field 'resign'
-- Reply:   1
-- Cost:    O(1)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(1, function(group)
  redis.call('ZREM', group.clients, client)
  if redis.call('GET', group.driver) == client then
    redis.call('DEL', group.driver)
    if best_of(group) then
      tell('all', 'w ' .. group.driver)
    end
  end
  return 1
end)
