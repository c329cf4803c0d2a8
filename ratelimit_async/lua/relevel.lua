-- Purpose: moves those who wait in levels that are gone into the last that is left, each in order of arrival.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua, with the levels of before; an entry is how many are left
-- Reply:   1
-- Cost:    O(depth x log depth) where anybody waits there
-- @include prelude
-- @include limits
-- @include queue
-- @include run

-- Far below what a command's arguments, unpacked on Lua's stack, may be.
local MOST = 500

return run(1, function(group, a)
  local left, entries = tonumber(ARGV[a]), {}
  for p = left, group.priorities do
    for _, text in ipairs(redis.call('LRANGE', group.queues[p], '0', '-1')) do
      local entry = entry_of(text)
      entry.level, entry.place, entry.came = p, #entries, since_of(entry)
      entries[#entries + 1] = entry
    end
  end
  if #entries == depths_of(group)[left] then
    return 1
  end
  table.sort(entries, function(one, other)
    if one.came ~= other.came then
      return one.came < other.came
    end
    return one.place < other.place
  end)
  local texts = {}
  for i, entry in ipairs(entries) do
    count(group, entry.level, entry, -1)
    count(group, left, entry, 1)
    texts[i] = entry.text
  end
  for p = left, group.priorities do
    redis.call('DEL', group.queues[p])
  end
  for i = 1, #texts, MOST do
    redis.call('RPUSH', group.queues[left], unpack(texts, i, math.min(i + MOST - 1, #texts)))
  end
  keep(group)
  return 1
end)
