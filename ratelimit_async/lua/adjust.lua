-- Purpose: settles a grant to its true costs, even into debt; ends it.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is id, stamp (us, when it was charged), finished (us, when it ended, 0: it
--          has not), costs charged so far, true costs, ends (1: the call is over), again (1: it may have arrived before)
-- Reply:   us by Redis' clock, when that was
-- Cost:    O(buckets since the stamp) per limit that gets something back
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(7, function(group, a)
  local id, stamp, finished = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local before, after = costs_of(ARGV[a + 3]), costs_of(ARGV[a + 4])
  local ends, again = ARGV[a + 5] == '1', ARGV[a + 6] == '1'
  go_on_when_full(group)
  watch(group)
  limits_of(group)
  local held = group.holds and finished == 0 and part_of('held').remove(group, id, ARGV[a + 3])
  if again and not held then
    return now
  end
  for _, limit in ipairs(group.limits) do
    local old, new = cost_of(limit, before), cost_of(limit, after)
    if limit.finish and finished == 0 then
      if ends and new > 0 then
        limit.does.charge(limit, new)
      end
    elseif limit.kind ~= 'cc' and new < old then
      -- What was charged before the end counts from the end, what was charged after it from then.
      shift(group, limit, limit.finish and math.max(finished, stamp) or stamp, new - old)
    elseif limit.kind ~= 'cc' and new > old then
      limit.does.charge(limit, new - old)
    end
  end
  if held and ends then
    part_of('held').note(group, now - stamp)
  elseif group.holds and finished == 0 and not ends then
    part_of('held').add(group, id, ARGV[a + 4])
  end
  group.freed = true
  return now
end, function(group)
  nudge(group)
end)
