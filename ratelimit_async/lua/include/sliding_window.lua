-- sw: never more than the amount in any window; see window.lua.

parts.sw = function()
  local sliding = {}

  function sliding.open(limit)
    limit.base, limit.total, limit.newest = open_window(limit.key, limit.period)
    limit.used = limit.total - limit.base
  end

  function sliding.gone_at(limit, stamp)
    return bucket_of(limit.period, stamp) + limit.period
  end

  function sliding.free_in(limit, units)
    if limit.shifts then
      sliding.save_shifts(limit)
    end
    return window_frees_in(limit.key, limit.period, limit.newest, limit.base + units)
  end

  -- What passes now passes again a period later, so demand beyond the amount waits so many whole periods more.
  function sliding.wait(limit, demand)
    local periods = math.floor((demand - 1) / limit.amount)
    local wait = periods * cycle_of(limit)
    return wait + wait_within(limit, demand - periods * limit.amount)
  end

  function sliding.reset_in(limit)
    if limit.used <= 0 then
      return 0
    end
    if limit.shifts then
      sliding.save_shifts(limit)
    end
    local newest = limit.dirty and current_bucket(limit.period, limit.newest) or limit.newest
    return newest + limit.period - now
  end

  function sliding.charge(limit, cost)
    limit.total = limit.total + cost
    limit.used = limit.used + cost
    limit.dirty = true
  end

  function sliding.save(limit)
    limit.newest = save_window(limit.key, limit.period, limit.newest, limit.total)
  end

  -- How much was charged in a bucket, and whether it is there.
  local function charged_in(limit, bucket)
    local rank = redis.call('ZRANK', limit.key, int(bucket))
    if not rank then
      return 0
    end
    local two = redis.call('ZRANGE', limit.key, math.max(rank - 1, 0), rank, 'WITHSCORES')
    return two[4] and two[4] - two[2] or tonumber(two[2])
  end

  -- What was counted at `stamp` and is still there bounds what is taken off. Kept in memory: buckets after it have to be
  -- changed one by one, which is done once for all that a call shifts.
  function sliding.shift(limit, stamp, delta)
    local bucket = bucket_of(limit.period, stamp)
    if bucket + limit.period <= now then
      return
    end
    local shifts = limit.shifts or {}
    if delta < 0 then
      delta = math.max(delta, -charged_in(limit, bucket) - (shifts[bucket] or 0))
    end
    if delta ~= 0 then
      limit.shifts = shifts
      shifts[bucket] = (shifts[bucket] or 0) + delta
      limit.total = limit.total + delta
      limit.used = limit.used + delta
    end
  end

  function sliding.save_shifts(limit)
    local order, scores = {}, {}
    for bucket in pairs(limit.shifts) do
      order[#order + 1] = bucket
    end
    table.sort(order)
    -- From the bucket before the first that changes, which stays as it is.
    local rank = redis.call('ZRANK', limit.key, int(order[1])) or 1
    local members = redis.call('ZRANGE', limit.key, math.max(rank - 1, 0), '-1', 'WITHSCORES')
    local i, before, shifted, kept, kept_score = 1, 0, 0, 0, '0'
    for n = 1, #order + 1 do
      local bucket = order[n]
      while members[i] and (not bucket or tonumber(members[i]) < bucket) do
        before = tonumber(members[i + 1])
        if n == 1 then
          kept, kept_score = tonumber(members[i]), int(before)
        else
          scores[#scores + 1] = int(before + shifted)
          scores[#scores + 1] = members[i]
        end
        i = i + 2
      end
      if bucket then
        shifted = shifted + limit.shifts[bucket]
        if members[i] and tonumber(members[i]) == bucket then
          before = tonumber(members[i + 1])
          i = i + 2
        end
        scores[#scores + 1] = int(before + shifted)
        scores[#scores + 1] = int(bucket)
      end
    end
    limit.shifts = nil
    -- Newest buckets that were emptied go: what is left decides when the window is unused again.
    while #scores > 0 and scores[#scores - 1] == (scores[#scores - 3] or kept_score) do
      redis.call('ZREM', limit.key, table.remove(scores))
      table.remove(scores)
    end
    limit.newest = tonumber(scores[#scores]) or kept
    if #scores > 0 then
      redis.call('ZADD', limit.key, unpack(scores))
      redis.call('PEXPIRE', limit.key, life_of(limit.period, limit.newest))
    end
  end

  return sliding
end
