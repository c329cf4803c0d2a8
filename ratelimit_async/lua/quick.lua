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
  local used, bucket = total - base, current_bucket(period, newest)
  local reply, before, asked, retry = { -1 }, total, nil, nil
  for e = 1, entries do
    local entry, charges, cost = ARGV[first + e], true, 1
    if entry ~= 'hit -' then
      local op, text = match(entry, '^(%l+) (%S+)$')
      charges, cost = op == 'hit', text == '-' and 1 or tonumber(match(text, '^requests=(%d+)$'))
      if not cost or cost == 0 or cost > amount then
        return
      end
    end
    local missing = used + cost - amount
    if missing > 0 then
      if missing ~= asked then
        asked, retry = missing, window_frees_in(key, period, newest, base + missing)
      end
      local reset = (total > before and bucket or newest) + period - now
      reply[e + 1] = { 0, 'limit', 1, math.max(amount - used, 0), retry, reset, 0 }
    elseif charges then
      used, total = used + cost, total + cost
      reply[e + 1] = { 1, 'ok', 1, amount - used, 0, bucket + period - now, now }
    else
      local reset = used > 0 and (total > before and bucket or newest) + period - now or 0
      reply[e + 1] = { 1, 'ok', 1, amount - used, 0, reset, 0 }
    end
  end
  if total > before then
    save_window(key, period, newest, bucket, total)
  end
  return reply
end

local replies, group, groups, a, k = {}, 1, tonumber(ARGV[5]), 6, 1
local header, priorities, amount, period
while group <= groups do
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
    replies[group] = reply
  else
    replies[group] = left_to_admit(entries)
  end
  group, a, k = group + 1, a + 3 + entries, last + 2
end

if group > groups then
  return replies
end

-- @include basics
-- @include limits

local function serve(opened, first, entries)
  local reply = { -1 }
  for e = 1, entries do
    local op, text = read(ARGV[first + e])
    reply[e + 1] = decide(opened, text, op == 'hit')
  end
  save(opened)
  return reply
end

for i = group, groups do
  -- One for all that are configured alike.
  local opened = header_of(ARGV[a])
  local entries, last = tonumber(ARGV[a + 2]), k + 1 + opened.priorities
  local served, reply = false, nil
  if is_quiet(a, k, last) then
    opened.opened = false
    for n, limit in ipairs(opened.limits) do
      limit.group, limit.key, limit.used, limit.dirty = opened, KEYS[last + n], 0, false
    end
    served, reply = pcall(serve, opened, a + 2, entries)
  end
  replies[i] = served and reply or left_to_admit(entries)
  a, k = a + 3 + entries, last + #opened.limits + 1
end
return replies
