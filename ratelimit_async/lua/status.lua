-- Purpose: what a key's limits and queue look like now.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is the priority and the cost for which to estimate the wait
-- Reply:   {{used, reset us} per limit, {depth per priority}, oldest wait us, estimated wait us, 1 where it is driven,
--          us for which it stays paused, -1 without end, 0 not,
--          {durable tasks that run, are delayed, have no worker, are dead; workers}}
-- Cost:    O(log 800) per limit
-- @include prelude
-- @include limits
-- @include queue
-- @include tasks
-- @include run

return run(2, function(group, a)
  local limits, oldest = {}, 0
  go_on_when_full(group)
  look(group)
  for i, limit in ipairs(limits_of(group)) do
    limits[i] = { used_of(limit), reset_of(limit) }
  end
  for p, queue in ipairs(group.queues) do
    local head = depths_of(group)[p] > 0 and redis.call('LINDEX', queue, '0')
    if head then
      oldest = math.max(oldest, now - tonumber(entry_of(head).enqueued))
    end
  end
  local estimate = wait_for(group, costs_of(ARGV[a + 1]), costs_ahead(group, tonumber(ARGV[a]) + 1) or {})
  local pause = paused_until(group)
  estimate = math.max(estimate, pause - now)
  local tasks = {}
  if redis.call('EXISTS', group.tasks, group.workers) > 0 then
    for i, key in ipairs({ group.started, group.delayed, group.parked, group.dead }) do
      tasks[i] = redis.call('ZCARD', key)
    end
    tasks[5] = #workers_of(group)
  end
  pause = pause > 0 and pause - now or pause
  return { limits, group.depths, oldest, estimate, redis.call('EXISTS', group.driver), pause, tasks }
end, function(group)
  nudge(group)
end)
