-- Purpose: checks limits; charges all or none; a request that must wait joins the queue in the same step.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is op, id's number, priority (0 first), cost, time, enqueued, again
--          op: hit, check, request, submit (as request, with an estimate), return (one that Redis forgot)
--          time: us to wait at most, -1 for no bound, 0 for not at all; for return the deadline, us, 0 for none
--          enqueued: for return, when it first joined, us; again: 1 where an earlier sending may have arrived
-- Reply:   hit, check: {allowed, reason, limit's index, remaining, retry us (-1 unknown), reset us}
--          request: {'A', limit's index, remaining, reset us, stamp} admitted; {'Q', entry, position, estimate us} waits;
--          {'G', record} granted earlier; {'T', estimate us} may not wait; {'F'} the queue is full
-- Cost:    O(log 1000) per limit and entry; O(depth) where `again` is 1 or op is return
-- @include prelude
-- @include limits
-- @include queue

local function answer(group, costs, charges)
  local allowed, reason, retry, binds = 0, 'limit', 0, 0
  if group.paused then
    reason, retry = 'paused', -1
  elseif group.depth > 0 then
    reason = 'queue'
    retry, binds = wait_for(group, costs, group.depth)
  elseif fits(group, costs) then
    allowed, reason = 1, 'ok'
    if charges then
      charge(group, costs)
    end
  else
    retry, binds = wait_for(group, costs, 0)
  end
  local index, remaining, reset = state_of(group, binds)
  return { allowed, reason, index, remaining, retry, reset }
end

local function has_room(group, priority)
  if group.depth < group.max_size then
    return true
  end
  if group.overflow == 'drop_oldest' then
    for p = group.priorities, priority, -1 do
      local oldest = group.depths[p] > 0 and redis.call('LPOP', group.queues[p])
      if oldest then
        add_depth(group, p, -1)
        drop(group, entry_of(oldest), 'overflow')
        return true
      end
    end
  end
  return false
end

local function join(group, priority, entry)
  redis.call('ZADD', group.clients, int(now + client_lease), client)
  group.alive[client] = true
  if entry.enqueued < now then
    insert(group, priority, entry)
  else
    redis.call('RPUSH', group.queues[priority], entry.text)
    add_depth(group, priority, 1)
  end
  group.joined = true
end

local function request(group, op, seq, priority, cost, wait, enqueued, again)
  local costs, id = costs_of(cost), client .. '.' .. seq
  if again or op == 'return' then
    local value = redis.call('HGET', group.records, id)
    if value then
      return { 'G', value }
    end
    local entry, _, position = find(group, id)
    if entry then
      return { 'Q', entry.text, position, 0 }
    end
  end
  local ahead = ahead_of(group, priority)
  local deadline = op == 'return' and wait or 0
  if op ~= 'return' then
    if not group.paused and ahead == 0 and fits(group, costs) then
      charge(group, costs)
      local index, remaining, reset = state_of(group, 0)
      return { 'A', index, remaining, reset, now }
    end
    if wait == 0 then
      return { 'T', (wait_for(group, costs, ahead)) }
    end
    save(group)
    if not has_room(group, priority) then
      return { 'F' }
    end
    deadline = wait > 0 and now + wait or 0
  end
  local text = table.concat({ client, seq, int(enqueued or now), int(deadline), cost }, ' ')
  join(group, priority, entry_of(text))
  return { 'Q', text, ahead + 1, op == 'submit' and wait_for(group, costs, ahead) or 0 }
end

return run(7, function(group, a)
  look(group)
  local op, cost = ARGV[a], ARGV[a + 3]
  if op == 'hit' or op == 'check' then
    return answer(group, costs_of(cost), op == 'hit')
  end
  local priority = tonumber(ARGV[a + 2]) + 1
  local enqueued = op == 'return' and tonumber(ARGV[a + 5])
  return request(group, op, ARGV[a + 1], priority, cost, tonumber(ARGV[a + 4]), enqueued, ARGV[a + 6] == '1')
end, function(group)
  save(group)
  if group.joined then
    keep(group)
  end
  nudge(group)
end)
