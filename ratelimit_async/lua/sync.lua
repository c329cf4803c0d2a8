-- Purpose: renews a client's lease on a key it waits on, and tells what became of its requests.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is scan (1: also look for requests that Redis forgot), the numbers of the
--          client's waiting ids, joined by spaces, and again (1 where an earlier sending may have arrived)
-- Reply:   {1 where the lease is known not to have lapsed, {numbers of those granted or dropped}, {numbers not found},
--          1 where the queue is too long to be looked through in one call: those may stand in it, see place.lua}
-- Cost:    O(ids)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(3, function(group, a)
  go_on_when_full(group)
  -- An earlier sending whose reply was lost may have renewed one that had lapsed.
  local held = is_alive(group, client) and ARGV[a + 2] == '0'
  redis.call('ZADD', group.clients, int(now + client_lease), client)
  redis.call('ZREMRANGEBYSCORE', group.clients, '-inf', int(now - QUEUE_TTL * 1000))
  group.alive[client] = true
  keep(group)
  local ids, seqs = {}, {}
  for seq in string.gmatch(ARGV[a + 1], '%S+') do
    ids[#ids + 1] = client .. '.' .. seq
    seqs[#seqs + 1] = seq
  end
  local values = redis.call('HMGET', group.records, unpack(ids))
  local ready, lost = {}, {}
  local long = ahead_of(group, group.priorities) > 2 * BATCH
  for i, id in ipairs(ids) do
    if values[i] then
      ready[#ready + 1] = seqs[i]
    elseif ARGV[a] == '1' and (long or not find(group, id)) then
      lost[#lost + 1] = seqs[i]
    end
  end
  -- A driver that died leaves nobody to look at the queue: whoever waits sees to it.
  if redis.call('EXISTS', group.driver) == 0 then
    nudge(group, true)
  end
  return { held and 1 or 0, ready, lost, long and 1 or 0 }
end)
