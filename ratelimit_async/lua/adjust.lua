-- Purpose: settles: gives back what was charged too much, charges what was too little, even into debt.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is stamp (us, when it was charged), cost to refund, cost to charge
-- Reply:   1
-- Cost:    O(buckets since the stamp) per limit refunded
-- @include prelude
-- @include limits
-- @include queue

return run(3, function(group, a)
  watch(group)
  refund(group, tonumber(ARGV[a]), costs_of(ARGV[a + 1]))
  charge(group, costs_of(ARGV[a + 2]))
  return 1
end, function(group)
  save(group)
  nudge(group, true)
end)
