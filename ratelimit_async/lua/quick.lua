-- Purpose: hits and checks of keys that nobody waits for: the usual case, with the fewest keys, commands and tables.
-- KEYS:    per group its clients; after all of these, per group: one state per limit
-- ARGV:    number of groups; per group its header, the number of its entries, and these: 'op costs', op: hit, check
--          header: of a key with one sliding window of requests its amount and period, us; of any other as in
--          include/prelude.lua
-- Reply:   as decide gives them, five numbers for each entry, one after another whatever their group; five times LEFT
--          for each entry of a group that admit.lua has to look at: somebody waits, or may have to; it is paused for itself,
--          its state is nothing that can be read, or a cost is unusual
-- Cost:    O(log 800) per limit and entry
-- @include clock
-- @include verdicts
-- @include window

-- One list for all: each table of a reply costs Redis as much as a few numbers.
local replies, told = { 0, 0, 0, 0, 0 }, 0

-- One for all: what a key's limit holds, while it is served.
local window = { newest = 0, written = 0, total = 0, oldest = 0, base = 0, kept = 0, expired = 0, rows = 0 }

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
  for e = first, first + entries - 1 do
    local entry, charges, cost = ARGV[e], true, 1
    if entry ~= 'hit -' then
      local op, text = match(entry, '^(%l+) (%S+)$')
      charges, cost = op == 'hit', text == '-' and 1 or tonumber(match(text, '^requests=(%d+)$'))
      if not cost or cost > amount then
        return
      end
    end
    local verdict, rest = ALLOWED, 0
    local missing = cost > 0 and used + cost - amount or 0
    if missing > 0 then
      if missing ~= asked then
        asked, frees = missing, window_frees_in(window, key, period, missing)
      end
      verdict, rest = LIMITED, frees
    elseif charges then
      if cost > 0 and total == window.total then
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

-- What any other key needs is made when the first comes.
local function make_others()
  -- @include basics
  -- @include limits

  local function serve(group, state, first, entries)
    group.opened = false
    for n, limit in ipairs(group.limits) do
      limit.group, limit.key, limit.used, limit.dirty = group, KEYS[state + n], 0, false
    end
    for e = first, first + entries - 1 do
      local op, text = read(ARGV[e])
      local t = told
      replies[t + 1], replies[t + 2], replies[t + 3], replies[t + 4], replies[t + 5] = decide(group, text, op == 'hit')
      told = t + 5
    end
    save(group)
    return true
  end

  return header_of, serve
end

-- Where a group's arguments begin, and after which its sign and its states do.
local a, sign, state = 2, 0, ARGV[1] + 0
-- Mostly nobody waits for any: one command tells.
local quiet = call('EXISTS', unpack(KEYS, 1, state)) == 0

local header, amount, period, group, header_of, serve
while ARGV[a] do
  -- Many groups of a call are configured alike.
  if ARGV[a] ~= header then
    header = ARGV[a]
    amount, period = match(header, '^(%d+) (%d+)$')
    amount, period = tonumber(amount), tonumber(period)
    if not period then
      if not serve then
        header_of, serve = make_others()
      end
      group = header_of(header)
    end
  end
  local before, entries = told, tonumber(ARGV[a + 1])
  local answered, usual
  sign = sign + 1
  if quiet or call('EXISTS', KEYS[sign]) == 0 then
    if period then
      answered, usual = pcall(serve_window, KEYS[state + 1], amount, period, a + 2, entries)
    else
      answered, usual = pcall(serve, group, state, a + 2, entries)
    end
  end
  if not (answered and usual) then
    told = before + 5 * entries
    for n = before + 1, told do
      replies[n] = LEFT
    end
  end
  a, state = a + 2 + entries, state + (period and 1 or #group.limits)
end
return replies
