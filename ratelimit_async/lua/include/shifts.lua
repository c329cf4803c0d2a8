-- What changes the past of a sliding window, beside what sliding_window.lua does.

local sliding_window = parts.sw

parts.sw = function()
  local sliding = sliding_window()

  function sliding.gone_at(limit, stamp)
    return bucket_of(limit.period, stamp) + limit.period
  end

  function sliding.free_in(limit, units)
    if limit.shifts then
      sliding.save_shifts(limit)
    end
    return window_frees_in(limit, units)
  end

  local resets_in = sliding.reset_in

  function sliding.reset_in(limit)
    if limit.shifts and limit.used > 0 then
      sliding.save_shifts(limit)
    end
    return resets_in(limit)
  end

  local function begin_anew(limit)
    local text, rows = rows_of(limit.key, limit.expired + 1, limit.rows - 1), {}
    for at = 1, #text, 14 do
      local bucket, total = unpacked(ROW, text, at)
      rows[#rows + 1] = packed(ROW, bucket, total - limit.base)
    end
    limit.rows, limit.expired = limit.rows - limit.expired, 0
    limit.total, limit.written, limit.base = limit.total - limit.base, limit.written - limit.base, 0
    write_window(limit, table.concat(rows))
  end

  function sliding.save(limit)
    if limit.total > MOST_TOTAL then
      begin_anew(limit)
    end
    save_window(limit)
  end

  -- After a change of configuration: for as long as it counts now.
  function sliding.keep(limit)
    limit.kept = 0
    write_window(limit)
  end

  local function charged_in(limit, bucket)
    local _, before, found, total = find_row(limit, 1, bucket)
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

  -- The rows from one on, with all that was shifted, in the order of its buckets; as ends and totals.
  local function shifted_rows(shifts, order, text, before)
    local ends, totals = {}, {}
    local i, shifted, first = 1, 0, before
    for at = 1, #text + 1, 14 do
      local bucket, total = nil, before
      if at < #text then
        bucket, total = unpacked(ROW, text, at)
      end
      while order[i] and (not bucket or order[i] <= bucket) do
        shifted = shifted + shifts[order[i]]
        if order[i] ~= bucket then
          ends[#ends + 1], totals[#totals + 1] = order[i], before + shifted
        end
        i = i + 1
      end
      if bucket then
        ends[#ends + 1], totals[#totals + 1] = bucket, total + shifted
      end
      before = total
    end
    -- Newest buckets that were emptied go: what is left decides when the window is unused again.
    while #totals > 0 and totals[#totals] == (totals[#totals - 1] or first) do
      ends[#ends], totals[#totals] = nil, nil
    end
    return ends, totals
  end

  function sliding.save_shifts(limit)
    local key, shifts, order = limit.key, limit.shifts, {}
    limit.shifts = nil
    for bucket in pairs(shifts) do
      order[#order + 1] = bucket
    end
    table.sort(order)
    local from, before = find_row(limit, 1, order[1])
    local ends, totals = shifted_rows(shifts, order, rows_of(key, from, limit.rows), before)
    local count, all = #ends, from - 1 + #ends
    if all == limit.expired then
      local unwritten = limit.total - limit.base
      redis.call('DEL', key)
      clear_window(limit)
      limit.total = unwritten
      return
    end
    if from == limit.expired + 1 then
      limit.oldest = ends[1]
    end
    -- The last is written with the tail.
    local rows = {}
    for n = 1, count - 1 do
      rows[n] = packed(ROW, ends[n], totals[n])
    end
    rows = table.concat(rows)
    -- What is shorter than it was, or what has expired altogether, is replaced.
    if all < limit.rows or limit.rows == 0 then
      limit.newest, limit.written = ends[count] or unpacked(ROW, rows_of(key, all, all), 1), totals[count] or before
      -- Of those that have expired the newest stays, to count from.
      local cut = math.max(limit.expired - 1, 0)
      rows = rows_of(key, cut + 1, math.min(from, all) - 1) .. rows
      limit.expired, limit.rows = limit.expired - cut, all - cut
      write_window(limit, rows)
    elseif count > 0 then
      if rows ~= '' then
        redis.call('SETRANGE', key, int(14 * from - 14), rows)
      end
      limit.newest, limit.written, limit.rows = ends[count], totals[count], all
      write_window(limit)
    end
  end

  return sliding
end
