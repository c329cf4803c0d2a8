-- What runs: the requests of keys with limits that count a call while it runs: concurrent ones, and those that count
-- from the finish.
--
-- held, a sorted set: 'id costs' -> when its lease ends, us; '#unit' -> minus the sum held of the unit (below 1, where
-- no lease ends); '#' -> minus the mean time that requests were held, us.

-- cc: never more than the amount at once; its state is what is held.
parts.cc = function()
  return {
    open = function() end,
    -- A hit that was on its way when the limit came.
    charge = function() end,
    reset_in = function()
      return 0
    end,
  }
end

parts.held = function()
  local held = {}

  local function cost_held(limit, member)
    return cost_of(limit, costs_of(string.match(member, ' (%S+)$')))
  end

  function held.of(limit)
    local group = limit.group
    group.sums = group.sums or {}
    local sum = group.sums[limit.unit]
    if not sum then
      local known = redis.call('ZSCORE', group.held, '#' .. limit.unit)
      sum = -(tonumber(known) or 0)
      if not known then
        -- A unit that is held since the configuration changed, or nothing at all.
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', group.held, '1', '+inf')) do
          sum = sum + cost_held(limit, member)
        end
        group.new_sums = (group.new_sums or 0) + 1
      end
      group.sums[limit.unit] = sum
    end
    return sum
  end

  local function add_held(group, costs, sign)
    local seen = {}
    for _, limit in ipairs(group.limits) do
      if limit.holds and not seen[limit.unit] then
        seen[limit.unit] = true
        group.sums = group.sums or {}
        group.sums[limit.unit] = held.of(limit) + sign * cost_of(limit, costs)
      end
    end
    group.sums_dirty = true
  end

  function held.add(group, id, text)
    group.holding = group.holding or {}
    table.insert(group.holding, int(now + client_lease))
    table.insert(group.holding, id .. ' ' .. text)
    add_held(group, costs_of(text), 1)
  end

  function held.save(group)
    local scores = group.holding or {}
    local new = #scores / 2 + (group.new_sums or 0)
    if group.sums_dirty then
      for unit, sum in pairs(group.sums) do
        table.insert(scores, int(-math.max(sum, 0)))
        table.insert(scores, '#' .. unit)
      end
    end
    if #scores > 0 then
      if redis.call('ZADD', group.held, unpack(scores)) < new then
        -- One was held already, since a release that was lost, and counts once: `of` adds up anew.
        for unit in pairs(group.sums) do
          redis.call('ZREM', group.held, '#' .. unit)
        end
        group.sums = nil
      end
      -- What was held must still be there to count once its lease has ended.
      local longest = 0
      for _, limit in ipairs(group.limits) do
        longest = math.max(longest, limit.finish and limit.period or 0)
      end
      redis.call('PEXPIRE', group.held, int(QUEUE_TTL + 2 * longest / 1000))
      group.new_sums = nil
    end
    group.holding, group.sums_dirty = nil, false
  end

  -- Whether it was held, be it since an entry of this very call.
  function held.remove(group, id, text)
    held.save(group)
    for _, limit in ipairs(group.limits) do
      -- Known before the member goes: it may have to be added up.
      held.of(limit)
    end
    if redis.call('ZREM', group.held, id .. ' ' .. text) == 0 then
      return false
    end
    add_held(group, costs_of(text), -1)
    return true
  end

  function held.has(group, id, text)
    held.save(group)
    return redis.call('ZSCORE', group.held, id .. ' ' .. text)
  end

  -- One whose lease had ended still runs, and counts again.
  function held.renew(group, id, text)
    if held.has(group, id, text) then
      redis.call('ZADD', group.held, int(now + client_lease), id .. ' ' .. text)
    else
      held.add(group, id, text)
    end
  end

  -- A lease that ended: its holder is gone, and its call ended then at the latest.
  function held.lapse(group)
    local lapsed = redis.call('ZRANGEBYSCORE', group.held, '1', int(now), 'WITHSCORES', 'LIMIT', '0', BATCH)
    for i = 1, #lapsed, 2 do
      local id, text = string.match(lapsed[i], '^(%S+) (%S+)$')
      held.remove(group, id, text)
      for _, limit in ipairs(group.limits) do
        local cost = cost_of(limit, costs_of(text))
        if limit.finish and cost > 0 then
          limit.does.shift(limit, tonumber(lapsed[i + 1]), cost)
        end
      end
    end
    if #lapsed > 0 then
      save(group)
    end
  end

  -- us until the leases of so many units have ended, if nobody renews them.
  function held.lapses_in(limit, units)
    local leases = redis.call('ZRANGEBYSCORE', limit.group.held, '1', '+inf', 'WITHSCORES', 'LIMIT', '0', BATCH)
    for i = 1, #leases, 2 do
      units = units - cost_held(limit, leases[i])
      if units <= 0 then
        return math.max(tonumber(leases[i + 1]) - now, 0)
      end
    end
    -- The rest began in this very call, or comes after those that were looked through.
    return client_lease
  end

  -- us until the last lease ends of those that count for a limit.
  function held.last_lapse(limit)
    local holding = limit.group.holding or {}
    for i = 2, #holding, 2 do
      if cost_held(limit, holding[i]) > 0 then
        return client_lease
      end
    end
    local leases = redis.call('ZREVRANGEBYSCORE', limit.group.held, '+inf', '1', 'WITHSCORES', 'LIMIT', '0', BATCH)
    for i = 1, #leases, 2 do
      if cost_held(limit, leases[i]) > 0 then
        return tonumber(leases[i + 1]) - now
      end
    end
    return client_lease
  end

  function held.mean(group)
    if not group.mean then
      group.mean = -(tonumber(redis.call('ZSCORE', group.held, '#')) or 0)
    end
    return group.mean
  end

  function held.note(group, us)
    local mean = held.mean(group)
    group.mean = mean > 0 and mean + (us - mean) / 8 or math.max(us, 1)
    redis.call('ZADD', group.held, int(-group.mean), '#')
  end

  return held
end
