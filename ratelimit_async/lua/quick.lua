-- Purpose: hits and checks of keys that nobody waits for: the usual case, with the fewest keys and tables.
-- KEYS:    per group: leases, pause, one queue per priority, one state per limit
-- ARGV:    see include/prelude.lua; an entry is 'op costs', op: hit, check
-- Reply:   as admit.lua's; '' for each entry of a group that admit.lua has to look at: somebody waits, or may have to;
--          it is paused, or its state is nothing that can be read
-- Cost:    O(log 800) per limit and entry
-- @include clock
-- @include window

local function left_to_admit(entries)
  local reply = { -1 }
  for e = 1, entries do
    reply[e + 1] = ''
  end
  return reply
end

local function is_quiet(a, k, last)
  return ARGV[a + 1] == '0' and call('EXISTS', unpack(KEYS, k, last)) == 0
end

-- The usual limit is one sliding window of requests. It is decided by this and window.lua alone: making the parts that
-- other limits need takes longer than that. Gives nothing where an entry is not usual.
local function serve_window(key, amount, period, first, entries)
  local base, total, newest = open_window(key, period)
  local used, bucket, last = total - base, current_bucket(period, newest), newest
  local reply, before, asked, frees = { -1 }, total, nil, nil
  for e = 1, entries do
    local entry, charges, cost = ARGV[first + e], true, 1
    if entry ~= 'hit -' then
      local op, text = match(entry, '^(%l+) (%S+)$')
      charges, cost = op == 'hit', text == '-' and 1 or tonumber(match(text, '^requests=(%d+)$'))
      if not cost or cost == 0 or cost > amount then
        return
      end
    end
    local allowed, reason, retry, stamp = 1, 'ok', 0, 0
    local missing = used + cost - amount
    if missing > 0 then
      if missing ~= asked then
        asked, frees = missing, window_frees_in(key, period, newest, base + missing)
      end
      allowed, reason, retry = 0, 'limit', frees
    elseif charges then
      used, total, last, stamp = used + cost, total + cost, bucket, now
    end
    local reset = used > 0 and last + period - now or 0
    reply[e + 1] = { allowed, reason, 1, math.max(amount - used, 0), retry, reset, stamp }
  end
  if total > before then
    save_window(key, period, newest, bucket, total)
  end
  return reply
end

local replies, i, groups, a, k = {}, 1, tonumber(ARGV[5]), 6, 1
local header, priorities, amount, period
while i <= groups do
  -- Many groups of a call are configured alike.
  if ARGV[a] ~= header then
    header = ARGV[a]
    priorities, amount, period = match(header, '^(%d+) %d+ %S+ %d+ %d sw requests (%d+) (%d+) 0$')
    priorities, amount, period = tonumber(priorities), tonumber(amount), tonumber(period)
  end
  if not period then
    break
  end
  local entries, last = tonumber(ARGV[a + 2]), k + 1 + priorities
  if is_quiet(a, k, last) then
    local served, reply = pcall(serve_window, KEYS[last + 1], amount, period, a + 2, entries)
    if not (served and reply) then
      break
    end
    replies[i] = reply
  else
    replies[i] = left_to_admit(entries)
  end
  i, a, k = i + 1, a + 3 + entries, last + 2
end

if i > groups then
  return replies
end

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

for rest = i, groups do
  -- One for all that are configured alike.
  local group = header_of(ARGV[a])
  local entries, last = tonumber(ARGV[a + 2]), k + 1 + group.priorities
  local served, reply = false, nil
  if is_quiet(a, k, last) then
    group.opened = false
    for n, limit in ipairs(group.limits) do
      limit.group, limit.key, limit.used, limit.dirty = group, KEYS[last + n], 0, false
    end
    served, reply = pcall(serve, group, a + 2, entries)
  end
  replies[rest] = served and reply or left_to_admit(entries)
  a, k = a + 3 + entries, last + #group.limits + 1
end
return replies
