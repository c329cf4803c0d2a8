-- Purpose: what a key's limits and queue look like now.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is the priority and the cost for which to estimate the wait
-- Reply:   {{used, reset us} per limit, {depth per priority}, oldest wait us, estimated wait us, 1 where it is driven}
-- Cost:    O(log 1000) per limit
-- @include prelude
-- @include limits
-- @include queue

return run(2, function(group, a)
  local limits, oldest = {}, 0
  look(group)
  for i, limit in ipairs(limits_of(group)) do
    limits[i] = { limit.used, limit.does.reset_in(limit) }
  end
  for p, queue in ipairs(group.queues) do
    local head = depths_of(group)[p] > 0 and redis.call('LINDEX', queue, 0)
    if head then
      oldest = math.max(oldest, now - entry_of(head).enqueued)
    end
  end
  local estimate = wait_for(group, costs_of(ARGV[a + 1]), ahead_of(group, tonumber(ARGV[a]) + 1))
  return { limits, group.depths, oldest, estimate, redis.call('EXISTS', group.driver) }
end, function(group)
  nudge(group)
end)
