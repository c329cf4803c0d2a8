-- Grants for a time that is yet to come. The limits are opened as they will stand then, and what is charged counts from
-- then; what expires or drains until then counts on meanwhile, so that nothing else passes early.

-- When the call is made; `now` may be ahead of it.
local present = now

local function is_ahead()
  return now > present
end

local function go_to(group, at)
  now, filling, group.opened = at, {}, false
  for _, limit in ipairs(group.limits) do
    limit.used, limit.scale = 0, 1
  end
end

-- Opens the limits as they will stand then, if nobody is charged until then.
local function stand_at(group, at)
  go_to(group, at)
  for _, limit in ipairs(limits_of(group)) do
    limit.before = limit.used
  end
end

-- Writes what a limit is charged for that time onto what it is now.
local function write_ahead(limit)
  local charged, due = limit.used - limit.before, now
  now, limit.used = present, 0
  limit.does.open(limit)
  now = due
  if limit.kind == 'tb' then
    -- What would drain until then is no more than there is before it.
    limit.used = math.max(limit.used, (due - limit.stamp) * limit.drain) + charged
  else
    limit.total = limit.total + charged
  end
  limit.does.save(limit)
end

local function save_charges(group)
  if not is_ahead() then
    save(group)
    return
  end
  for _, limit in ipairs(group.limits) do
    if limit.dirty then
      write_ahead(limit)
      limit.dirty = false
    end
  end
end

-- Does something with a group that may stand at times to come, and is back in the present whatever happens.
local function and_back(act, group, ...)
  local ok, result = pcall(act, group, ...)
  go_to(group, present)
  if not ok then
    error(result, 0)
  end
  return result
end
