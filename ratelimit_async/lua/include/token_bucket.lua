-- tb: a sustained rate with a burst: the generic cell rate algorithm (ITU-T I.371), kept as the level of a leaky bucket.
--
-- A string 'stamp level since scale': the level at `stamp`, in parts of which a unit has `scale`, so that `drain` whole
-- parts leave per us and nothing is rounded; `since` when it was last empty, us. amount is the burst, period the scale.

parts.tb = function()
  local bucket = {}

  function bucket.open(limit)
    limit.scale = limit.period
    limit.stamp, limit.since = now, now
    local state = redis.call('GET', limit.key)
    if not state then
      return
    end
    local stamp, level, since, scale = string.match(state, '^(%d+) (%d+) (%d+) (%d+)$')
    if not stamp then
      error('WRONGTYPE ' .. limit.key .. ' holds something else than a token bucket', 0)
    end
    -- A clock that stepped back drains nothing.
    limit.stamp = math.max(tonumber(stamp), now)
    level = tonumber(level)
    if tonumber(scale) ~= limit.scale then
      level = math.ceil(level / tonumber(scale) * limit.scale)
    end
    limit.used = math.max(level - (limit.stamp - tonumber(stamp)) * limit.drain, 0)
    if limit.used > 0 then
      limit.since = tonumber(since)
    end
  end

  function bucket.free_in(limit, parts)
    -- Beyond 2^53 whole numbers are no longer exact: a microsecond more is enough.
    local spare = limit.amount * limit.scale < 2 ^ 53 and 0 or 1
    return limit.stamp - now + math.ceil(parts / limit.drain) + spare
  end

  function bucket.reset_in(limit)
    return limit.used > 0 and bucket.free_in(limit, limit.used) or 0
  end

  function bucket.charge(limit, cost)
    limit.used = limit.used + cost * limit.scale
    limit.dirty = true
  end

  function bucket.save(limit)
    local state = int(limit.stamp) .. ' ' .. int(limit.used) .. ' ' .. int(limit.since) .. ' ' .. int(limit.scale)
    redis.call('SET', limit.key, state, 'PX', int(math.ceil(bucket.reset_in(limit) / 1000) + 1000))
  end

  -- What was charged before the bucket was last empty has drained: nothing of it is there to be given back.
  function bucket.shift(limit, stamp, delta)
    if delta > 0 or stamp >= limit.since then
      limit.used = math.max(limit.used + delta * limit.scale, 0)
      limit.dirty = true
    end
  end

  return bucket
end
