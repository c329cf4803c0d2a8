-- Purpose: hits and checks of keys that nobody waits for: the usual case, with the fewest keys, commands and tables.
-- KEYS:    per group: leases, pause, one queue per priority; after all of these, per group: one state per limit
-- ARGV:    the number of the former; per group its header as in include/prelude.lua, the number of its entries, and these:
--          'op costs', op: hit, check
-- Reply:   as decide gives them, five numbers for each entry, one after another whatever their group; five times LEFT
--          for each entry of a group that admit.lua has to look at: somebody waits, or may have to; it is paused for itself,
--          or its state is nothing that can be read
-- Cost:    O(log 800) per limit and entry
-- @include clock
-- @include verdicts
-- @include window

-- One list for all: each table of a reply costs Redis as much as a few numbers.
local replies, told = { 0, 0, 0, 0, 0 }, 0

local function leave_to_admit(entries)
  local before = told
  told = told + 5 * entries
  for n = before + 1, told do
    replies[n] = LEFT
  end
end

-- One for all: what a key's limit holds, while it is served.
local window = {}

-- The usual limit is one sliding window of requests. It is decided by this and window.lua alone: making the parts that
-- other limits need takes longer than that. Gives true, but nothing where an entry is not usual.
local function serve_window(key, amount, period, first, entries)
  open_window(window, key, period)
  local total = window.total
  -- Such a one has to begin anew.
  if total > MOST_TOTAL then
    return
  end
  local used, asked, frees = total - window.base, nil, nil
  local reset = used > 0 and window.newest + period - now or 0
  for e = first + 1, first + entries do
    local entry, charges, cost = ARGV[e], true, 1
    if entry ~= 'hit -' then
      local op, text = match(entry, '^(%l+) (%S+)$')
      charges, cost = op == 'hit', text == '-' and 1 or tonumber(match(text, '^requests=(%d+)$'))
      if not cost or cost == 0 or cost > amount then
        return
      end
    end
    local verdict, rest = ALLOWED, 0
    local missing = used + cost - amount
    if missing > 0 then
      if missing ~= asked then
        asked, frees = missing, window_frees_in(window, key, period, missing)
      end
      verdict, rest = LIMITED, frees
    elseif charges then
      if total == window.total then
        reset = current_bucket(period, window.newest) + period - now
      end
      used, total, rest = used + cost, total + cost, now
    end
    replies[told + 1], replies[told + 2], replies[told + 3] = verdict, 1, used < amount and amount - used or 0
    replies[told + 4], replies[told + 5] = reset, rest
    told = told + 5
  end
  if total > window.total then
    window.total = total
    save_window(window, key, period)
  end
  return true
end

-- Where a group's arguments and its signs of somebody who waits begin, and after which its states do.
local a, k, s = 2, 1, ARGV[1] + 0
-- Mostly nobody waits for any: one command tells.
local quiet = call('EXISTS', unpack(KEYS, 1, ARGV[1])) == 0

local function is_quiet(last)
  return quiet or call('EXISTS', unpack(KEYS, k, last)) == 0
end

local header, priorities, amount, period
while ARGV[a] do
  -- Many groups of a call are configured alike.
  if ARGV[a] ~= header then
    header = ARGV[a]
    priorities, amount, period = match(header, '^(%d+) %d+ %S+ %d+ %d sw requests (%d+) (%d+) 0$')
    priorities, amount, period = tonumber(priorities), tonumber(amount), tonumber(period)
  end
  if not period then
    break
  end
  local before, entries, past = told, tonumber(ARGV[a + 1]), k + 2 + priorities
  if is_quiet(past - 1) then
    local served, usual = pcall(serve_window, KEYS[s + 1], amount, period, a + 1, entries)
    if not (served and usual) then
      told = before
      break
    end
  else
    leave_to_admit(entries)
  end
  a, k, s = a + 2 + entries, past, s + 1
end

if not ARGV[a] then
  return replies
end

-- @include basics
-- @include limits

local function serve(group, first, entries)
  for e = 1, entries do
    local op, text = read(ARGV[first + e])
    local t = told
    replies[t + 1], replies[t + 2], replies[t + 3], replies[t + 4], replies[t + 5] = decide(group, text, op == 'hit')
    told = t + 5
  end
  save(group)
end

while ARGV[a] do
  -- One for all that are configured alike.
  local group = header_of(ARGV[a])
  local before, entries, past = told, tonumber(ARGV[a + 1]), k + 2 + group.priorities
  local served = false
  if is_quiet(past - 1) then
    group.opened = false
    for n, limit in ipairs(group.limits) do
      limit.group, limit.key, limit.used, limit.dirty = group, KEYS[s + n], 0, false
    end
    served = pcall(serve, group, a + 1, entries)
  end
  if not served then
    told = before
    leave_to_admit(entries)
  end
  a, k, s = a + 2 + entries, past, s + #group.limits
end
return replies
