-- Purpose: takes a request out of the queue, or gives back its unclaimed grant, or a charge that nobody was told of.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is id, entry ('' where it is not known), priority (0 first), reason,
--          turn, costs
--          reason: '' where the owner itself withdraws; otherwise the owner is told
--          turn (see include/taken.lua), costs: of its owner, who knows that it does not run; '' otherwise
-- Reply:   'Q' was waiting, 'G' was granted, '' unknown
-- Cost:    O(depth of the priority); O(depth) without the entry; O(what was taken lately) where it is not known
-- @include prelude
-- @include limits
-- @include queue
-- @include taken
-- @include run

local function remove(group, id, text, priority)
  if text ~= '' and group.queues[priority] and redis.call('LREM', group.queues[priority], '1', text) > 0 then
    return entry_of(text), priority
  end
  -- Not where it was, if it was lifted meanwhile.
  local entry, found = find(group, id)
  if entry then
    redis.call('LREM', group.queues[found], '1', entry.text)
  end
  return entry, found
end

return run(6, function(group, a)
  local id, text, priority, reason = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2]) + 1, ARGV[a + 3]
  local turn, costs = ARGV[a + 4], ARGV[a + 5]
  go_on_when_full(group)
  watch(group)
  local value = redis.call('HGET', group.records, id)
  local grant = value and grant_of(value)
  local entry, found, before
  if value then
    forget(group, { id })
  end
  if grant then
    entry = grant.entry
    give_back(group, entry.id, entry.cost, grant.stamp)
  elseif not value then
    entry, found = remove(group, id, text, priority)
    if entry then
      count(group, found, entry, -1)
    elseif turn ~= '' then
      before = find_taken(group, turn)
    end
  end
  if before then
    give_back(group, id, costs, tonumber(before))
    forget_taken(group, turn)
  end
  if entry and reason ~= '' then
    drop(group, entry, reason)
  end
  return (grant or before) and 'G' or entry and 'Q' or ''
end, function(group)
  nudge(group)
end)
