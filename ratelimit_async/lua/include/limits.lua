-- The limits' states: opened once per group, charged in memory, saved once.
--
-- An algorithm has open(limit), free_in(limit, parts), reset_in(limit), charge(limit, cost), save(limit) and
-- shift(limit, stamp, delta), which changes what was charged at `stamp`, us, and may leave that to be
-- written by save_shifts(limit); where it can be said, gone_at(limit, stamp) is when that no longer counts; one whose state
-- tells how long it is kept has keep(limit), which keeps it for as long as it counts now. `used` is what counts now,
-- in parts of which a unit has `scale`; demand and cost are in units, waits in us. What runs is counted beside `used`.

-- What runs counts besides what is charged.
local function held_of(limit)
  return limit.holds and part_of('held').of(limit) or 0
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
    part_of('held').save(group)
  end
end

-- @include verdicts
-- @include window
-- @include sliding_window
-- @include shifts
-- @include fixed_windows
-- @include token_bucket
-- @include held
-- @include waits

local function limits_of(group)
  if not group.opened then
    group.opened = true
    for _, limit in ipairs(group.limits) do
      limit.does = part_of(limit.kind)
      limit.does.open(limit)
    end
    if group.holds then
      part_of('held').lapse(group)
    end
  end
  return group.limits
end

local function fits(group, costs)
  for _, limit in ipairs(limits_of(group)) do
    local cost = cost_of(limit, costs)
    local held = held_of(limit)
    if cost > 0 and limit.used + (held + cost - limit.amount) * limit.scale > 0 then
      return false
    end
  end
  return true
end

-- With an id, limits that count running calls count it as one until it ends.
local function charge(group, text, id)
  local costs = costs_of(text)
  for _, limit in ipairs(limits_of(group)) do
    local cost = cost_of(limit, costs)
    if cost > 0 and not (limit.holds and id) then
      limit.does.charge(limit, cost)
    end
  end
  if group.holds and id then
    part_of('held').add(group, id, text)
  end
end

local function shift(group, limit, stamp, delta)
  if limit.dirty then
    save(group)
  end
  limit.does.shift(limit, stamp, delta)
end

-- Gives back all that a grant was charged whose call never ran.
local function give_back(group, id, text, stamp)
  if group.holds then
    part_of('held').remove(group, id, text)
  end
  for _, limit in ipairs(limits_of(group)) do
    local cost = cost_of(limit, costs_of(text))
    if cost > 0 and not limit.holds then
      shift(group, limit, stamp, -cost)
    end
  end
  group.freed = true
end

-- us until `costs` pass once those of `ahead` (by unit) have, and the index of the limit that binds.
local function wait_for(group, costs, ahead)
  local longest, binds = 0, 0
  group.guess = ahead ~= nil
  for i, limit in ipairs(limits_of(group)) do
    local demand = cost_of(limit, costs) + (ahead and ahead[limit.unit] or 0)
    local wait = demand > 0 and part_of('waits')[limit.kind](limit, demand) or 0
    if wait > longest then
      longest, binds = wait, i
    end
  end
  return math.ceil(longest), binds
end

local function used_of(limit)
  if limit.scale == 1 and not limit.holds then
    return limit.used
  end
  return math.ceil(limit.used / limit.scale) + held_of(limit)
end

local function reset_of(limit)
  local reset = limit.does.reset_in(limit)
  if limit.holds and held_of(limit) > 0 then
    reset = math.max(reset, part_of('waits').gone_in(limit, part_of('held').last_lapse(limit)))
  end
  return math.ceil(reset)
end

-- @include tightest

-- Index, remaining and us to its reset of limit `binds`, or, for 0, of the one with the smallest share remaining.
local function state_of(group, binds)
  local limits, index = limits_of(group), binds
  if binds == 0 then
    index = #limits == 1 and 1 or tightest(limits, used_of)
  end
  local limit = limits[index]
  return index, math.max(limit.amount - used_of(limit), 0), reset_of(limit)
end

-- The answer to a check where nobody waits and nothing is paused: the verdict, index, remaining and us to its reset of the
-- limit that binds, and when it was charged or, where it does not pass, us until it may.
local function decide(group, text, charges, id)
  local costs = costs_of(text)
  local verdict, binds, last = ALLOWED, 0, 0
  if not fits(group, costs) then
    verdict = LIMITED
    last, binds = wait_for(group, costs)
  elseif charges then
    charge(group, text, id)
    last = now
  end
  local index, remaining, reset = state_of(group, binds)
  return verdict, index, remaining, reset, last
end
