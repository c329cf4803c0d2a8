-- How long a limit makes wait: by its kind, us until a demand passes, which may be more than the amount.

parts.waits = function()
  -- us after which a limit can pass its amount again.
  local function cycle_of(limit)
    return limit.period + (limit.finish and part_of('held').mean(limit.group) or 0)
  end

  -- us until what ends in `wait` us no longer counts.
  local function gone_in(limit, wait)
    if not limit.finish then
      return wait
    elseif limit.does.gone_at then
      return limit.does.gone_at(limit, now + wait) - now
    end
    return wait + limit.period
  end

  -- us until a demand of at most the amount passes. Where calls that run are in its way: once their leases end if nobody
  -- renews them or, to `guess`, once they have run as long as calls do on average.
  local function wait_within(limit, demand)
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
      return gone_in(limit, part_of('held').lapses_in(limit, beyond))
    end
    -- While nobody knows how long calls run, nothing is refused for it.
    local wait = gone_in(limit, part_of('held').mean(group) * beyond / limit.amount)
    -- What ends fills the bucket, and has to drain.
    return limit.kind == 'tb' and math.max(wait, limit.does.free_in(limit, missing)) or wait
  end

  -- What passes now passes again a period later, so demand beyond the amount waits so many whole periods more.
  local function sliding(limit, demand)
    local periods = math.floor((demand - 1) / limit.amount)
    return periods * cycle_of(limit) + wait_within(limit, demand - periods * limit.amount)
  end

  local function fixed(limit, demand)
    local used = math.min(limit.used, limit.amount)
    local missing = used + held_of(limit) + demand - limit.amount
    if missing <= 0 then
      return 0
    end
    -- A call that ends in the window it began in leaves the next one free.
    local cycle = math.max(math.ceil((cycle_of(limit) - limit.period) / limit.period), 1) * limit.period
    return math.floor((missing - 1) / limit.amount) * cycle + wait_within(limit, math.min(demand, limit.amount))
  end

  local function bucket(limit, demand)
    local beyond = math.max(demand - limit.amount, 0)
    return wait_within(limit, demand - beyond) + beyond * limit.scale / limit.drain
  end

  return { sw = sliding, sc = sliding, fw = fixed, tb = bucket, cc = wait_within, gone_in = gone_in }
end
