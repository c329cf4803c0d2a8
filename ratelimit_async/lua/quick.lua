-- Purpose: hits and checks of keys that nobody waits for: the usual case, with the fewest keys and tables.
-- KEYS:    per group: leases, pause, one queue per priority, one state per limit
-- ARGV:    see include/prelude.lua; an entry is 'op costs', op: hit, check
-- Reply:   as admit.lua's; '' for each entry of a group that admit.lua has to look at: somebody waits, or may have to;
--          it is paused, or its state is nothing that can be read
-- Cost:    O(log 800) per limit and entry
-- @include basics
-- @include limits

local function serve(group, first, entries)
  local reply = { -1 }
  for e = 1, entries do
    local op, text = read(ARGV[first + e])
    reply[e + 1] = decide(group, text, op == 'hit')
  end
  save(group)
  return reply
end

local function left_to_admit(entries)
  local reply = { -1 }
  for e = 1, entries do
    reply[e + 1] = ''
  end
  return reply
end

local replies, a, k = {}, 6, 1
for i = 1, tonumber(ARGV[5]) do
  -- One for all that are configured alike.
  local group = header_of(ARGV[a])
  local entries, last = tonumber(ARGV[a + 2]), k + 1 + group.priorities
  local served, reply = false, nil
  if ARGV[a + 1] == '0' and redis.call('EXISTS', unpack(KEYS, k, last)) == 0 then
    group.opened = false
    for n, limit in ipairs(group.limits) do
      limit.group, limit.key, limit.used, limit.dirty = group, KEYS[last + n], 0, false
    end
    served, reply = pcall(serve, group, a + 2, entries)
  end
  replies[i] = served and reply or left_to_admit(entries)
  a, k = a + 3 + entries, last + #group.limits + 1
end
return replies
