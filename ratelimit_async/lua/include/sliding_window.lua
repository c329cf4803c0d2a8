-- sw: never more than the amount in any window; see window.lua.

parts.sw = function()
  local sliding = {}

  function sliding.open(limit)
    open_window(limit, limit.key, limit.period)
    limit.used = limit.total - limit.base
  end

  function sliding.gone_at(limit, stamp)
    return bucket_of(limit.period, stamp) + limit.period
  end

  function sliding.free_in(limit, units)
    if limit.shifts then
      sliding.save_shifts(limit)
    end
    return window_frees_in(limit, limit.key, limit.period, units)
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
    if limit.total > MOST_EXACT / 2 then
      limit.shifts = {}
      sliding.save_shifts(limit)
    end
    save_window(limit, limit.key, limit.period)
  end

  -- After a change of configuration: for as long as it counts now.
  function sliding.keep(limit)
    limit.kept = 0
    write_window(limit, limit.key, limit.period)
  end

  local function charged_in(limit, bucket)
    local _, before, found, total = find_row(limit, limit.key, 1, bucket)
    return found == bucket and total - before or 0
  end

  -- What was counted at `stamp` and is still there bounds what is taken off. Kept in memory: rows after it have to be
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
    local charged, buckets, total = limit.shifts, {}, limit.base
    limit.shifts = nil
    -- Of those that have expired the newest stays, to count from.
    local first = math.max(limit.expired, 1)
    local text = rows_of(limit.key, first, limit.rows)
    local rows = { string.sub(text, 1, 16 * (limit.expired - first + 1)) }
    for at = #rows[1] + 1, 16 * (limit.rows - first + 1), 16 do
      local bucket, sum = unpacked(ROW, text, at)
      charged[bucket] = (charged[bucket] or 0) + sum - total
      total = sum
    end
    for bucket, units in pairs(charged) do
      if units ~= 0 then
        buckets[#buckets + 1] = bucket
      end
    end
    table.sort(buckets)
    -- So that sums stay exact, however long a window goes on.
    if #buckets == 0 or total > MOST_EXACT / 2 then
      limit.total, limit.base, limit.expired, rows[1] = limit.total - limit.base, 0, 0, ''
    end
    total = limit.base
    for n, bucket in ipairs(buckets) do
      total = total + charged[bucket]
      rows[n + 1] = packed(ROW, bucket, total)
    end
    limit.newest, limit.written, limit.oldest = buckets[#buckets] or 0, total, buckets[1] or 0
    limit.expired = math.min(limit.expired, 1)
    limit.rows = #buckets + limit.expired
    if #buckets == 0 then
      redis.call('DEL', limit.key)
    else
      -- The newest one's is written with the tail.
      rows[#rows] = nil
      write_window(limit, limit.key, limit.period, table.concat(rows))
    end
  end

  return sliding
end
