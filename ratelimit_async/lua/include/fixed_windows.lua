-- fw: at most the amount per window aligned to the epoch (UTC); a string 'period:index:used'. What a window of another
--     period still counts, it counts in this one.
-- sc: two of these, the previous one counted by the share of it that a sliding window would still cover;
--     a string 'period:index:current:previous'.

local function numbers_of(limit, state, pattern, what)
  local period, index, one, two = match(state, pattern)
  if not index then
    error('WRONGTYPE ' .. limit.key .. ' holds something else than a ' .. what, 0)
  end
  return tonumber(period), tonumber(index), tonumber(one), tonumber(two)
end

-- us from now to the end of the window that counts; a clock that stepped back does not reopen the one before.
local function rest_of(limit)
  return (limit.index + 1) * limit.period - now
end

local function life_of(us)
  return int(math.ceil(us / 1000) + 1000)
end

parts.fw = function()
  local fixed = {}

  -- By period: what the state of the window that is filled now begins with.
  local stems = {}

  function fixed.open(limit)
    limit.index = floor(now / limit.period)
    local stem = stems[limit.period]
    if not stem then
      stem = int(limit.period) .. ':' .. int(limit.index) .. ':'
      stems[limit.period] = stem
    end
    local state = call('GET', limit.key)
    limit.stem = stem
    if not state then
      return
    end
    local before, count = match(state, '^(%d+:%d+:)(%-?%d+)$')
    -- Mostly it is of that very window.
    if before == stem then
      limit.used = tonumber(count)
      return
    end
    local period, index, used = numbers_of(limit, state, '^(%d+):(%d+):(-?%d+)$', 'fixed window')
    if period ~= limit.period then
      -- What a window of another length still counts is counted in this one.
      limit.used = (index + 1) * period > now and used or 0
    elseif index > limit.index then
      limit.index, limit.used, limit.stem = index, used, before
    end
  end

  fixed.free_in = rest_of

  function fixed.gone_at(limit, stamp)
    return (math.floor(stamp / limit.period) + 1) * limit.period
  end

  function fixed.reset_in(limit)
    return limit.used > 0 and rest_of(limit) or 0
  end

  function fixed.charge(limit, cost)
    limit.used = limit.used + cost
    limit.dirty = true
  end

  function fixed.save(limit)
    redis.call('SET', limit.key, limit.stem .. int(limit.used), 'PX', life_of(rest_of(limit)))
  end

  function fixed.shift(limit, stamp, delta)
    if math.floor(stamp / limit.period) == limit.index then
      limit.used = math.max(limit.used + delta, 0)
      limit.dirty = true
    end
  end

  return fixed
end

parts.sc = function()
  local counter = {}

  -- Rounded up: a share of a request counts as one.
  local function decayed(limit, count, elapsed)
    return math.ceil(count * math.max(limit.period - elapsed, 0) / limit.period)
  end

  local function recount(limit)
    local elapsed = math.max(now - limit.index * limit.period, 0)
    limit.used = limit.current + decayed(limit, limit.previous, elapsed)
  end

  function counter.open(limit)
    limit.index, limit.current, limit.previous = floor(now / limit.period), 0, 0
    local state = call('GET', limit.key)
    if state then
      local period, index, current, previous =
        numbers_of(limit, state, '^(%d+):(%d+):(%d+):(%d+)$', 'sliding counter')
      if period ~= limit.period then
        local ends = (index + 1) * period
        if ends > now then
          limit.current = current + ceil(previous * (ends - now) / period)
        elseif ends + period > now then
          limit.current = ceil(current * (ends + period - now) / period)
        end
      elseif index >= limit.index then
        limit.index, limit.current, limit.previous = index, current, previous
      elseif index == limit.index - 1 then
        limit.previous = current
      end
    end
    recount(limit)
  end

  -- us into a window at which no more than `room` is left of the `count` of the one before.
  local function decays_in(limit, count, room)
    if count <= room then
      return 0
    end
    local elapsed = math.ceil(limit.period * (count - room) / count)
    while elapsed > 0 and decayed(limit, count, elapsed - 1) <= room do
      elapsed = elapsed - 1
    end
    while elapsed < limit.period and decayed(limit, count, elapsed) > room do
      elapsed = elapsed + 1
    end
    return elapsed
  end

  function counter.free_in(limit, units)
    local room = limit.used - units
    if limit.current <= room then
      return limit.index * limit.period + decays_in(limit, limit.previous, room - limit.current) - now
    end
    return rest_of(limit) + decays_in(limit, limit.current, math.max(room, 0))
  end

  function counter.reset_in(limit)
    if limit.current > 0 then
      return rest_of(limit) + limit.period
    end
    return limit.used > 0 and rest_of(limit) or 0
  end

  function counter.charge(limit, cost)
    limit.current = limit.current + cost
    limit.used = limit.used + cost
    limit.dirty = true
  end

  function counter.save(limit)
    local state = int(limit.period) .. ':' .. int(limit.index) .. ':' .. int(limit.current) .. ':' .. int(limit.previous)
    redis.call('SET', limit.key, state, 'PX', life_of(rest_of(limit) + limit.period))
  end

  function counter.shift(limit, stamp, delta)
    local index = math.floor(stamp / limit.period)
    if index == limit.index then
      limit.current = math.max(limit.current + delta, 0)
    elseif index == limit.index - 1 then
      limit.previous = math.max(limit.previous + delta, 0)
    else
      return
    end
    recount(limit)
    limit.dirty = true
  end

  return counter
end
