-- Purpose: after a change of configuration: adds up anew what is held, and keeps what is counted for as long as it counts.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry has the one field 'recount'
-- Reply:   1
-- Cost:    O(log 800) per limit, and O(held) for the next script that needs the sums
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(1, function(group)
  redis.call('ZREMRANGEBYSCORE', group.held, '-inf', '0')
  for _, limit in ipairs(limits_of(group)) do
    if limit.used > 0 and limit.does.keep then
      limit.does.keep(limit)
    elseif limit.used > 0 and limit.key then
      redis.call('PEXPIRE', limit.key, int(math.ceil(limit.does.reset_in(limit) / 1000) + 1000))
    end
  end
  return 1
end)
