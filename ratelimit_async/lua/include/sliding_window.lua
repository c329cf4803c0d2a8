-- sw: never more than the amount in any window; see window.lua.

parts.sw = function()
  local sliding = { open = open_window, free_in = window_frees_in, save = save_window }

  function sliding.reset_in(limit)
    if limit.used <= 0 then
      return 0
    end
    local newest = limit.dirty and current_bucket(limit.period, limit.newest) or limit.newest
    return newest + limit.period - now
  end

  function sliding.charge(limit, cost)
    limit.total = limit.total + cost
    limit.used = limit.used + cost
    limit.dirty = true
  end

  return sliding
end
