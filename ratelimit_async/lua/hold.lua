-- Purpose: renews the leases of what a client runs.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is the ids' numbers, each followed by its costs, joined by spaces
-- Reply:   1
-- Cost:    O(ids)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(1, function(group, a)
  go_on_when_full(group)
  for seq, text in string.gmatch(ARGV[a], '(%S+) (%S+)') do
    part_of('held').renew(group, client .. '.' .. seq, text)
  end
  return 1
end)
