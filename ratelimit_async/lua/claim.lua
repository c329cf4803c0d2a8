-- Purpose: takes over grants before their callers run; what is claimed is no longer taken back.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is turns (see include/taken.lua), joined by spaces, and again: 1 where an
--          earlier sending may have arrived
-- Reply:   per id its record ('G ...' or 'D ...', see include/queue.lua), '' where there is none; then the time, us: a
--          grant whose stamp is later runs no earlier than that
-- Cost:    O(ids); O(what was taken lately + log 800 per limit) where `again` is 1
-- @include prelude
-- @include limits
-- @include queue
-- @include taken
-- @include run

local function granted_before(group, stamp)
  local index, remaining, reset = state_of(group, 0)
  return table.concat({ 'G', stamp, 1, int(index), int(remaining), int(reset) }, ' ')
end

return run(2, function(group, a)
  local ids, turns, again = {}, {}, ARGV[a + 1] == '1'
  for turn in string.gmatch(ARGV[a], '%S+') do
    ids[#ids + 1] = client .. '.' .. string.match(turn, '^%d+')
    turns[#turns + 1] = turn
  end
  local values = redis.call('HMGET', group.records, unpack(ids))
  forget(group, ids)
  for i = 1, #ids do
    local stamp = values[i] and string.match(values[i], '^G (%d+)')
    local before = again and not values[i] and find_taken(group, turns[i])
    if stamp then
      note_taken(group, turns[i], stamp)
    elseif before then
      values[i] = granted_before(group, before)
    end
    if stamp and group.holds then
      redis.call('ZADD', group.held, 'XX', int(now + client_lease), ids[i] .. ' ' .. grant_of(values[i]).entry.cost)
    end
    values[i] = values[i] or ''
  end
  values[#ids + 1] = now
  return values
end, save_taken)
