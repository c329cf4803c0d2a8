-- Purpose: hits and checks of keys that nobody waits for: the usual case, with the fewest keys, commands and tables.
-- KEYS:    per group its clients; after all of these, per group: one state per limit
-- ARGV:    number of groups; per group its header, the number of its entries, and these: 'hit -', 'check -'; of what does
--          not cost the usual 'h' or 'c' and its costs, joined by ',', by unit in the order in which the limits name units
--          header: of a key with one sliding window its amount, its period, us, and what a request usually costs it; of
--          others kind, unit, amount, period and drain per limit, as in include/prelude.lua; of one with limits that count
--          what runs only the number of its states
-- Reply:   as decide gives them, five numbers for each entry, one after another whatever their group; five times LEFT
--          for each entry of a group that admit.lua has to look at: somebody waits, or may have to; it is paused for itself,
--          its state is nothing that can be read, or a cost is beyond an amount
-- Cost:    O(log 800) per limit and entry
-- @include clock
-- @include verdicts
-- @include usual

-- One list for all: each table of a reply costs Redis as much as a few numbers.
local replies, told = { 0, 0, 0, 0, 0 }, 0

-- Whether an entry takes what it asks for.
local byte = string.byte
local HIT = byte('h')

-- The usual limit is one sliding window. It is decided by this and window.lua alone: by what serves any, a check of it takes
-- Redis a quarter longer. Gives true, but nothing where admit.lua has to look.
local function serve_window(key, amount, period, usual, first, entries)
  window.key, window.period = key, period
  open_window(window)
  local total = window.total
  -- Such a one has to begin anew.
  if total > MOST_TOTAL then
    return
  end
  local used, asked, frees = window.used, nil, nil
  local reset = used > 0 and window.newest + period - now or 0
  for e = first, first + entries - 1 do
    local entry, charges, cost = ARGV[e], true, usual
    if entry ~= 'hit -' then
      charges = byte(entry) == HIT
      cost = entry == 'check -' and usual or tonumber(match(entry, '^%l(%d+)$'))
      if not cost or cost > amount then
        return
      end
    end
    local verdict, rest = ALLOWED, 0
    local missing = cost > 0 and used + cost - amount or 0
    if missing > 0 then
      if missing ~= asked then
        asked, frees = missing, window_frees_in(window, missing)
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
    save_window(window)
  end
  return true
end

-- What any other key needs is made when the first comes.
local function make_others()
  -- @include parts
  -- @include tightest
  -- @include sliding_window
  -- @include fixed_windows
  -- @include token_bucket

  local headers = {}

  -- What the limits of a key with such a header hold, while it is served.
  local function limits_of(header)
    local limits = headers[header]
    if not limits then
      limits = { states = tonumber(header) }
      local places, units = {}, 0
      for kind, unit, amount, period, drain in string.gmatch(header, '(%l%l) (%S+) (%d+) (%d+) (%d+)') do
        if not places[unit] then
          units = units + 1
          places[unit] = units
        end
        limits[#limits + 1] = {
          does = part_of(kind),
          place = places[unit],
          usual = unit == 'requests' and 1 or 0,
          amount = tonumber(amount),
          period = tonumber(period),
          drain = tonumber(drain),
          scale = 1,
          used = 0,
          total = 0,
          key = nil,
          dirty = nil,
          cost = nil,
          missing = nil,
          wait = nil,
        }
      end
      limits.states = limits.states or #limits
      headers[header] = limits
    end
    return limits
  end

  local function used_of(limit)
    return limit.scale == 1 and limit.used or ceil(limit.used / limit.scale)
  end

  -- One for all entries.
  local costs = {}

  -- Gives true, but nothing where admit.lua has to look.
  local function serve(limits, state, first, entries)
    local count = #limits
    if count == 0 then
      return
    end
    for n = 1, count do
      local limit = limits[n]
      limit.key, limit.used, limit.dirty, limit.missing = KEYS[state + n], 0, false, 0
      limit.does.open(limit)
      if limit.total > MOST_TOTAL then
        return
      end
    end
    for e = first, first + entries - 1 do
      local entry = ARGV[e]
      local usual, verdict, binds, rest = entry == 'hit -' or entry == 'check -', ALLOWED, count == 1 and 1 or 0, 0
      if not usual then
        local place = 0
        for cost in string.gmatch(entry, '%d+') do
          place = place + 1
          costs[place] = tonumber(cost)
        end
      end
      for n = 1, count do
        local limit = limits[n]
        local cost = usual and limit.usual or costs[limit.place]
        local missing = cost > 0 and limit.used + (cost - limit.amount) * limit.scale or 0
        limit.cost = cost
        if missing > 0 then
          if cost > limit.amount then
            return
          elseif missing ~= limit.missing then
            limit.missing, limit.wait = missing, ceil(limit.does.free_in(limit, missing))
          end
          verdict = LIMITED
          if limit.wait > rest then
            rest, binds = limit.wait, n
          end
        end
      end
      if verdict == ALLOWED and byte(entry) == HIT then
        rest = now
        for n = 1, count do
          local limit = limits[n]
          if limit.cost > 0 then
            limit.does.charge(limit, limit.cost)
            -- How long it makes wait has changed.
            limit.missing = 0
          end
        end
      end
      if binds == 0 then
        binds = tightest(limits, used_of)
      end
      local limit = limits[binds]
      local remaining = limit.amount - used_of(limit)
      replies[told + 1], replies[told + 2], replies[told + 3] = verdict, binds, remaining > 0 and remaining or 0
      replies[told + 4], replies[told + 5] = ceil(limit.does.reset_in(limit)), rest
      told = told + 5
    end
    for n = 1, count do
      local limit = limits[n]
      if limit.dirty then
        limit.does.save(limit)
      end
    end
    return true
  end

  return limits_of, serve
end

-- Where a group's arguments begin, and after which its sign and its states do.
local a, sign, state = 2, 0, ARGV[1] + 0
-- Mostly nobody waits for any: one command tells.
local quiet = call('EXISTS', unpack(KEYS, 1, state)) == 0

local header, amount, period, cost, limits, limits_of, serve
while ARGV[a] do
  -- Many groups of a call are configured alike.
  if ARGV[a] ~= header then
    header = ARGV[a]
    amount, period, cost = match(header, '^(%d+) (%d+) ([01])$')
    amount, period, cost = tonumber(amount), tonumber(period), tonumber(cost)
    if not period then
      if not serve then
        limits_of, serve = make_others()
      end
      limits = limits_of(header)
    end
  end
  local before, entries = told, tonumber(ARGV[a + 1])
  local answered, usual
  sign = sign + 1
  if quiet or call('EXISTS', KEYS[sign]) == 0 then
    if period then
      answered, usual = pcall(serve_window, KEYS[state + 1], amount, period, cost, a + 2, entries)
    else
      answered, usual = pcall(serve, limits, state, a + 2, entries)
    end
  end
  if not (answered and usual) then
    told = before + 5 * entries
    for n = before + 1, told do
      replies[n] = LEFT
    end
  end
  a, state = a + 2 + entries, state + (period and 1 or limits.states)
end
return replies
