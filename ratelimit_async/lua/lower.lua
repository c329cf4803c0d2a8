-- Purpose: takes over what an upstream says remains, where that is less than what is counted here.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is a limit's index, what remains of it, us until its reset (-1: not told)
-- Reply:   how much less remains now
-- Cost:    O(log 800); O(800) where the reset of a sliding window is told
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(3, function(group, a)
  local limit = limits_of(group)[tonumber(ARGV[a])]
  local less = limit.amount - used_of(limit) - tonumber(ARGV[a + 1])
  if less <= 0 then
    return 0
  end
  local reset = tonumber(ARGV[a + 2])
  -- Charged as far back as makes it leave at the upstream's reset.
  if limit.kind == 'sw' and reset >= 0 and reset < limit.period then
    shift(group, limit, now + reset - limit.period, less)
  else
    limit.does.charge(limit, less)
  end
  return less
end)
