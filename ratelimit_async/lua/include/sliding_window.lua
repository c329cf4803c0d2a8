-- sw: never more than the amount in any window.
--
-- A sorted set: member = end of a bucket, us; score = all that was ever charged up to its end. Charges of one bucket
-- share a member, so a window holds at most 1,000 (and the newest expired one, from which counting starts).

local sliding = {}
algorithms.sw = sliding

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

function sliding.gone_at(limit, stamp)
  return bucket_of(limit, stamp) + limit.period
end

function sliding.free_in(limit, units)
  local freed = redis.call('ZRANGEBYSCORE', limit.key, int(limit.base + units), '+inf', 'LIMIT', 0, 1)
  local bucket = tonumber(freed[1]) or math.max(bucket_of(limit, now), limit.newest)
  return bucket + limit.period - now
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

-- Adds to every bucket from that of `stamp` on; what was counted then and is still there bounds what is taken off.
function sliding.shift(limit, stamp, delta)
  local bucket = bucket_of(limit, stamp)
  if bucket + limit.period <= now then
    return
  end
  local rank = redis.call('ZRANK', limit.key, int(bucket))
  if not rank and delta < 0 then
    return
  end
  local members = redis.call('ZRANGE', limit.key, math.max((rank or 1) - 1, 0), -1, 'WITHSCORES')
  local before, base, scores = 0, 0, {}
  for i = 1, #members, 2 do
    local member, score = tonumber(members[i]), tonumber(members[i + 1])
    if member < bucket then
      before, base = score, member
    else
      if member == bucket and delta < 0 then
        delta = math.max(delta, before - score)
      end
      table.insert(scores, score + delta)
      table.insert(scores, members[i])
    end
  end
  if delta == 0 then
    return
  end
  if not rank then
    table.insert(scores, 1, int(bucket))
    table.insert(scores, 1, before + delta)
  end
  -- Newest buckets that were emptied go: what is left decides when the window is unused again.
  while #scores > 0 and scores[#scores - 1] == (scores[#scores - 3] or before) do
    redis.call('ZREM', limit.key, table.remove(scores))
    table.remove(scores)
  end
  limit.total = limit.total + delta
  limit.used = limit.used + delta
  limit.newest = tonumber(scores[#scores]) or base
  if #scores > 0 then
    for i = 1, #scores, 2 do
      scores[i] = int(scores[i])
    end
    redis.call('ZADD', limit.key, unpack(scores))
    redis.call('PEXPIRE', limit.key, int(math.ceil((limit.newest - now + limit.period) / 1000) + 1000))
  end
end
