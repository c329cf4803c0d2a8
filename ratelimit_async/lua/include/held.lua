-- What runs: the requests of keys with limits that count a call while it runs: concurrent ones, and those that count
-- from the finish.
--
-- held, a sorted set: 'id costs' -> when its lease ends, us; '#unit' -> minus the sum held of the unit (below 1, where
-- no lease ends); '#' -> minus the mean time that requests were held, us.

-- cc: never more than the amount at once; its state is what is held.
algorithms.cc = {
  open = function() end,
  wait = function(limit, demand)
    return wait_within(limit, demand)
  end,
  reset_in = function()
    return 0
  end,
}

local function cost_held(limit, member)
  return cost_of(limit, costs_of(string.match(member, ' (%S+)$')))
end

function held_of(limit)
  if not limit.holds then
    return 0
  end
  local group = limit.group
  group.sums = group.sums or {}
  local sum = group.sums[limit.unit]
  if not sum then
    local known = redis.call('ZSCORE', group.held, '#' .. limit.unit)
    sum = -(tonumber(known) or 0)
    if not known then
      -- A unit that is held since the configuration changed, or nothing at all.
      for _, member in ipairs(redis.call('ZRANGEBYSCORE', group.held, 1, '+inf')) do
        sum = sum + cost_held(limit, member)
      end
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
      group.sums[limit.unit] = held_of(limit) + sign * cost_of(limit, costs)
    end
  end
  group.sums_dirty = true
end

local function hold(group, id, text)
  group.holding = group.holding or {}
  table.insert(group.holding, int(now + client_lease))
  table.insert(group.holding, id .. ' ' .. text)
  add_held(group, costs_of(text), 1)
end

local function save_held(group)
  local scores = group.holding or {}
  if group.sums_dirty then
    for unit, sum in pairs(group.sums) do
      table.insert(scores, int(-math.max(sum, 0)))
      table.insert(scores, '#' .. unit)
    end
  end
  if #scores > 0 then
    redis.call('ZADD', group.held, unpack(scores))
    -- What was held must still be there to count once its lease has ended.
    local longest = 0
    for _, limit in ipairs(group.limits) do
      longest = math.max(longest, limit.finish and limit.period or 0)
    end
    redis.call('PEXPIRE', group.held, int(QUEUE_TTL + (client_lease + 2 * longest) / 1000))
  end
  group.holding, group.sums_dirty = nil, false
end

-- Whether it was held, be it since an entry of this very call.
local function unhold(group, id, text)
  save_held(group)
  for _, limit in ipairs(group.limits) do
    -- Known before the member goes: it may have to be added up.
    held_of(limit)
  end
  if redis.call('ZREM', group.held, id .. ' ' .. text) == 0 then
    return false
  end
  add_held(group, costs_of(text), -1)
  return true
end

local function is_held(group, id, text)
  save_held(group)
  return redis.call('ZSCORE', group.held, id .. ' ' .. text)
end

-- Charges are kept in memory until here: a write that fails must find nothing popped, recorded or told.
local function save(group)
  for _, limit in ipairs(group.limits) do
    if limit.shifts then
      limit.does.save_shifts(limit)
    end
    if limit.dirty then
      limit.does.save(limit)
      limit.dirty = false
    end
  end
  if group.holding or group.sums_dirty then
    save_held(group)
  end
end

-- A lease that ended: its holder is gone, and its call ended then at the latest.
local function lapse_held(group)
  local lapsed = redis.call('ZRANGEBYSCORE', group.held, 1, int(now), 'WITHSCORES', 'LIMIT', 0, BATCH)
  for i = 1, #lapsed, 2 do
    local id, text = string.match(lapsed[i], '^(%S+) (%S+)$')
    unhold(group, id, text)
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
local function lapses_in(limit, units)
  local leases = redis.call('ZRANGEBYSCORE', limit.group.held, 1, '+inf', 'WITHSCORES', 'LIMIT', 0, BATCH)
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
local function last_lapse(limit)
  local holding = limit.group.holding or {}
  for i = 2, #holding, 2 do
    if cost_held(limit, holding[i]) > 0 then
      return client_lease
    end
  end
  local leases = redis.call('ZREVRANGEBYSCORE', limit.group.held, '+inf', 1, 'WITHSCORES', 'LIMIT', 0, BATCH)
  for i = 1, #leases, 2 do
    if cost_held(limit, leases[i]) > 0 then
      return tonumber(leases[i + 1]) - now
    end
  end
  return client_lease
end

local function mean_held(group)
  if not group.mean then
    group.mean = -(tonumber(redis.call('ZSCORE', group.held, '#')) or 0)
  end
  return group.mean
end

local function note_held(group, us)
  local mean = mean_held(group)
  group.mean = mean > 0 and mean + (us - mean) / 8 or math.max(us, 1)
  redis.call('ZADD', group.held, int(-group.mean), '#')
end

-- us after which a limit can pass its amount again.
function cycle_of(limit)
  return limit.period + (limit.finish and mean_held(limit.group) or 0)
end

-- us until what ends in `wait` us no longer counts.
function gone_in(limit, wait)
  if not limit.finish then
    return wait
  elseif limit.does.gone_at then
    return limit.does.gone_at(limit, now + wait) - now
  end
  return wait + limit.period
end

-- us until a demand of at most the amount passes. Where calls that run are in its way: once their leases end if nobody
-- renews them or, to `guess`, once they have run as long as calls do on average.
function wait_within(limit, demand)
  local group, scale = limit.group, limit.scale
  local held = held_of(limit) * scale
  local missing = limit.used + held + (demand - limit.amount) * scale
  if missing <= 0 then
    return 0
  elseif missing <= limit.used or not limit.holds then
    return limit.does.free_in(limit, missing)
  end
  local beyond = math.ceil((missing - limit.used) / scale)
  if not group.guess then
    return gone_in(limit, lapses_in(limit, beyond))
  end
  -- While nobody knows how long calls run, nothing is refused for it.
  local wait = gone_in(limit, mean_held(group) * beyond / limit.amount)
  -- What ends fills the bucket, and has to drain.
  return limit.kind == 'tb' and math.max(wait, limit.does.free_in(limit, missing)) or wait
end
