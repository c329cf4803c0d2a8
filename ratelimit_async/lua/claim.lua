-- Purpose: takes over grants before their callers run; what is claimed is no longer taken back.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is the ids' numbers, joined by spaces
-- Reply:   per id its record ('G ...' or 'D ...', see include/queue.lua), '' where there is none
-- Cost:    O(ids)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(1, function(group, a)
  local ids = {}
  for seq in string.gmatch(ARGV[a], '%S+') do
    ids[#ids + 1] = client .. '.' .. seq
  end
  local values = redis.call('HMGET', group.records, unpack(ids))
  forget(group, ids)
  for i = 1, #ids do
    local grant = group.holds and values[i] and grant_of(values[i])
    if grant then
      redis.call('ZADD', group.held, 'XX', int(now + client_lease), ids[i] .. ' ' .. grant.entry.cost)
    end
    values[i] = values[i] or ''
  end
  return values
end)
