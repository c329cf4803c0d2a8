-- Purpose: checks limits; charges all or none; a request that must wait joins the queue in the same step.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is op, turn (see include/queue.lua), priority (0 first), costs, time, enqueued, fast, again
--          op: hit, check, request, submit (as request, with an estimate), shadow (as hit, for a call that will end),
--          return (one that Redis forgot)
--          time: us to wait at most, -1 for no bound, 0 for not at all; for return the deadline, us, 0 for none
--          enqueued: when it first joined, us, 0: now; fast: 1 where one that cannot be served in time may not wait;
--          again: 1 where an earlier sending may have arrived
-- Reply:   hit, check, shadow: {allowed, reason, limit's index, remaining, retry us (-1 unknown), reset us, stamp}
--          request: {'A', limit's index, remaining, reset us, stamp} admitted; {'G', record} granted
--          earlier; {'Q', entry, position, estimate us, 1 where the client's lease may have lapsed} waits; {'T', estimate us}
--          may not wait; {'F'} the queue is full
-- Cost:    O(log 1000) per limit and entry; O(depth) where `again` is 1, where `enqueued` is given, or op is return;
--          O(what was taken lately) where `again` is 1 or op is return
-- @include prelude
-- @include limits
-- @include queue
-- @include room
-- @include run

local function answer(group, text, charges, id)
  local allowed, reason, retry, binds, stamp = 0, 'limit', 0, 0, 0
  local costs, pause = costs_of(text), paused_until(group)
  if pause ~= 0 then
    reason = 'paused'
    retry, binds = wait_for(group, costs)
    retry = pause > 0 and math.max(retry, pause - now) or -1
  elseif depths_of(group) and group.depth > 0 then
    reason = 'queue'
    retry, binds = wait_for(group, costs, costs_ahead(group, group.priorities))
  elseif fits(group, costs) then
    allowed, reason = 1, 'ok'
    if charges then
      charge(group, text, id)
      stamp = now
    end
  else
    retry, binds = wait_for(group, costs)
  end
  local index, remaining, reset = state_of(group, binds)
  return { allowed, reason, index, remaining, retry, reset, stamp }
end

local function join(group, priority, entry)
  -- What else the client has waiting may be gone; once this renews the lease, nothing else tells.
  local lapsed = is_alive(group, client) and 0 or 1
  redis.call('ZADD', group.clients, int(now + client_lease), client)
  group.alive[client] = true
  if entry.enqueued < now then
    insert(group, priority, entry)
  else
    append(group, priority, entry)
  end
  group.joined = true
  return lapsed
end

local function admitted(group, stamp)
  local index, remaining, reset = state_of(group, 0)
  return { 'A', index, remaining, reset, stamp }
end

local function request(group, op, turn, priority, text, wait, enqueued, fast, again)
  local seq = string.match(turn, '^%d+')
  local costs, id = costs_of(text), client .. '.' .. seq
  if again or op == 'return' then
    local value = redis.call('HGET', group.records, id)
    if value then
      return { 'G', value }
    end
    local entry, _, position = find(group, id)
    if entry then
      return { 'Q', entry.text, position, 0, 1 }
    end
    local before = find_taken(group, turn) or group.holds and is_held(group, id, text) and now
    if before then
      return admitted(group, tonumber(before))
    end
  end
  local position, deadline, estimate = ahead_of(group, priority) + 1, wait, 0
  if op ~= 'return' then
    if position == 1 and paused_until(group) == 0 and fits(group, costs) then
      charge(group, text, id)
      note_taken(group, turn, int(now))
      return admitted(group, now)
    end
    if fast or wait == 0 or op == 'submit' then
      estimate = wait_for(group, costs, costs_ahead(group, priority) or {})
      estimate = math.max(estimate, paused_until(group) - now)
    end
    if wait == 0 or fast and wait > 0 and estimate > wait then
      return { 'T', estimate }
    end
    save(group)
    if not has_room(group, priority) then
      return { 'F' }
    end
    deadline = wait > 0 and now + wait or 0
  end
  enqueued = enqueued > 0 and enqueued or arrival(group)
  local entry = entry_of(table.concat({ client, seq, int(enqueued), int(deadline), text }, ' '))
  local lapsed = join(group, priority, entry)
  return { 'Q', entry.text, position, estimate, lapsed }
end

return run(8, function(group, a)
  look(group)
  local op, text = ARGV[a], ARGV[a + 3]
  if op == 'hit' or op == 'check' then
    return answer(group, text, op == 'hit')
  elseif op == 'shadow' then
    return answer(group, text, true, client .. '.' .. ARGV[a + 1])
  end
  local priority = math.min(tonumber(ARGV[a + 2]) + 1, group.priorities)
  local wait, enqueued = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5])
  return request(group, op, ARGV[a + 1], priority, text, wait, enqueued, ARGV[a + 6] == '1', ARGV[a + 7] == '1')
end, function(group)
  if group.joined then
    keep(group)
  end
  save_taken(group)
  nudge(group)
end)
