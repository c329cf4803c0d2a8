-- The limits' states: opened once per group, charged in memory, saved once.
--
-- An algorithm has open(limit), free_in(limit, units), reset_in(limit), charge(limit, cost), save(limit) and
-- refund(limit, stamp, cost). `used` is what counts now; `stamp` is the time, us, at which a cost was charged.

local algorithms = {}

-- A sorted set: member = end of a bucket, us; score = all that was ever charged up to its end. Charges of one bucket
-- share a member, so a window holds at most 1,000 (and the newest expired one, from which counting starts).
local sliding = {}
algorithms.sliding_window = sliding

local function bucket_of(limit, at)
  local width = math.ceil(limit.period / 1000)
  return (math.floor(at / width) + 1) * width
end

function sliding.open(limit)
  local key, period = limit.key, limit.period
  limit.base, limit.total, limit.newest = 0, 0, 0
  local newest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if newest[1] then
    limit.newest, limit.total = tonumber(newest[1]), tonumber(newest[2])
    if limit.newest + period <= now then
      redis.call('DEL', key)
      limit.total, limit.newest = 0, 0
    else
      local size = 2
      while true do
        local oldest = redis.call('ZRANGE', key, 0, size - 1, 'WITHSCORES')
        local expired = 0
        for i = 1, #oldest, 2 do
          if tonumber(oldest[i]) + period > now then
            break
          end
          expired = expired + 1
          limit.base = tonumber(oldest[i + 1])
        end
        if expired > 1 then
          redis.call('ZREMRANGEBYRANK', key, 0, expired - 2)
        end
        if expired < size then
          break
        end
        size = 64
      end
    end
  end
  limit.used = limit.total - limit.base
end

function sliding.free_in(limit, units)
  if units > limit.used then
    return limit.period
  end
  local freed = redis.call('ZRANGEBYSCORE', limit.key, int(limit.base + units), '+inf', 'LIMIT', 0, 1)
  local bucket = tonumber(freed[1]) or math.max(bucket_of(limit, now), limit.newest)
  return bucket + limit.period - now
end

function sliding.reset_in(limit)
  if limit.used <= 0 then
    return 0
  end
  local newest = limit.newest
  if limit.dirty then
    newest = math.max(bucket_of(limit, now), newest)
  end
  return newest + limit.period - now
end

function sliding.charge(limit, cost)
  limit.total = limit.total + cost
  limit.used = limit.used + cost
  limit.dirty = true
end

function sliding.save(limit)
  -- A clock that steps back must not write before the newest bucket: the scores would no longer rise with time.
  local bucket = math.max(bucket_of(limit, now), limit.newest)
  redis.call('ZADD', limit.key, int(limit.total), int(bucket))
  if bucket ~= limit.newest then
    limit.newest = bucket
    redis.call('PEXPIRE', limit.key, int(math.ceil((bucket - now + limit.period) / 1000) + 1000))
  end
end

function sliding.refund(limit, stamp, cost)
  local bucket = bucket_of(limit, stamp)
  if bucket + limit.period <= now then
    return
  end
  local rank = redis.call('ZRANK', limit.key, int(bucket))
  if not rank then
    return
  end
  local members = redis.call('ZRANGE', limit.key, math.max(rank - 1, 0), -1, 'WITHSCORES')
  local first, before = 1, 0
  if rank > 0 then
    first, before = 3, tonumber(members[2])
  end
  local back = math.min(cost, tonumber(members[first + 1]) - before)
  if back <= 0 then
    return
  end
  local scores = {}
  for i = first, #members, 2 do
    scores[#scores + 1] = int(tonumber(members[i + 1]) - back)
    scores[#scores + 1] = members[i]
  end
  redis.call('ZADD', limit.key, unpack(scores))
  limit.total = limit.total - back
  limit.used = limit.used - back
end

-- A string 'index:used'; the windows are aligned to the epoch (UTC).
local fixed = {}
algorithms.fixed_window = fixed

function fixed.open(limit)
  limit.index = math.floor(now / limit.period)
  limit.used = 0
  local state = redis.call('GET', limit.key)
  if state then
    local index, used = string.match(state, '^(%d+):(-?%d+)$')
    if not index then
      error('WRONGTYPE ' .. limit.key .. ' holds something else than a fixed window')
    end
    if tonumber(index) == limit.index then
      limit.used = tonumber(used)
    end
  end
end

function fixed.free_in(limit)
  return (limit.index + 1) * limit.period - now
end

function fixed.reset_in(limit)
  return limit.used > 0 and fixed.free_in(limit) or 0
end

function fixed.charge(limit, cost)
  limit.used = limit.used + cost
  limit.dirty = true
end

function fixed.save(limit)
  local life = math.ceil(fixed.free_in(limit) / 1000) + 1000
  redis.call('SET', limit.key, int(limit.index) .. ':' .. int(limit.used), 'PX', int(life))
end

function fixed.refund(limit, stamp, cost)
  if math.floor(stamp / limit.period) == limit.index then
    limit.used = math.max(limit.used - cost, 0)
    limit.dirty = true
  end
end

local function limits_of(group)
  if not group.opened then
    group.opened = true
    for _, limit in ipairs(group.limits) do
      limit.does = algorithms[limit.algorithm]
      limit.does.open(limit)
    end
  end
  return group.limits
end

-- Charges are kept in memory until here: a write that fails must find nothing popped, recorded or told.
local function save(group)
  for _, limit in ipairs(group.limits) do
    if limit.dirty then
      limit.does.save(limit)
      limit.dirty = false
    end
  end
end

local function fits(group, costs)
  for _, limit in ipairs(limits_of(group)) do
    local cost = costs[limit.unit] or 0
    if cost > 0 and limit.used + cost > limit.amount then
      return false
    end
  end
  return true
end

local function charge(group, costs)
  for _, limit in ipairs(limits_of(group)) do
    local cost = costs[limit.unit] or 0
    if cost > 0 then
      limit.does.charge(limit, cost)
    end
  end
end

local function refund(group, stamp, costs)
  limits_of(group)
  save(group)
  for _, limit in ipairs(group.limits) do
    local cost = costs[limit.unit] or 0
    if cost > 0 then
      limit.does.refund(limit, stamp, cost)
    end
  end
  save(group)
end

-- us until `costs` pass once `ahead` requests of the same cost have passed before, and the index of the limit that binds.
local function wait_for(group, costs, ahead)
  local longest, binds = 0, 0
  for i, limit in ipairs(limits_of(group)) do
    local cost = costs[limit.unit] or 0
    local missing = limit.used + cost * (ahead + 1) - limit.amount
    if cost > 0 and missing > 0 then
      local windows = math.floor((missing - 1) / limit.amount)
      local wait = windows * limit.period + limit.does.free_in(limit, missing - windows * limit.amount)
      if wait > longest then
        longest, binds = wait, i
      end
    end
  end
  return longest, binds
end

-- Index, remaining and us to its reset of limit `binds`, or, for 0, of the one with the smallest share remaining.
local function state_of(group, binds)
  local least = 2
  for i, limit in ipairs(limits_of(group)) do
    local share = (limit.amount - limit.used) / limit.amount
    if binds == 0 and share < least then
      least, group.tightest = share, i
    end
  end
  local index = binds > 0 and binds or group.tightest
  local limit = group.limits[index]
  return index, math.max(limit.amount - limit.used, 0), limit.does.reset_in(limit)
end
