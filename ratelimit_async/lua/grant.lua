-- Purpose: grants the best waiting requests that the limits allow: pops, charges, records and tells in one step; also those
--          that they will allow within a moment, which run no earlier than that.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is the batch size, the slack, us, for which a next grant may be put off to
--          meet more of them in one call, and the grace, us, after which a task that no worker has is given up
-- Reply:   {'O', us} another client drives this key for so long; {'P', granted} as its driver; `next` is us to the
--          next possible grant, or -1: nobody waits and the driver's lease is given up
-- Cost:    O(batch size x log 800)
-- @include prelude
-- @include limits
-- @include ahead
-- @include queue
-- @include tasks
-- @include run

local function expire(group, entry)
  local task = task_of(group, entry.seq)
  if task and task.state == 'Q' then
    end_task(group, task, 'X', 'expired')
  end
end

-- Of those who are not granted, because they are gone or nobody can run them, one call looks at so many, and a few of each
-- group: the head stays due.
local lost_left, LEAST_LOST = BATCH, 8
-- Times to come at which one call grants, for one limit of one key; us for which it grants beyond the lead, so that it
-- serves all of some milliseconds; and us that two of those times may be apart.
local MOST_STEPS, SPAN, LONGEST_STEP = 16, 5000, 1000
-- What the groups of this call may still be granted together; each at least one. What was put back counts, too.
local left

local function take(group, batch)
  local grants, pops, looked, step = {}, {}, 0, math.min(8, batch)
  local most_lost = math.max(lost_left, LEAST_LOST)
  for p, queue in ipairs(group.queues) do
    local popped, blocked, waiting = 0, false, depths_of(group)[p]
    while not blocked and popped < waiting do
      -- Mostly few are granted at a time, however many wait.
      local texts = redis.call('LRANGE', queue, popped, popped + step - 1)
      step = math.min(4 * step, batch)
      if #texts == 0 then
        break
      end
      for _, text in ipairs(texts) do
        local entry = entry_of(text)
        local late = entry.task and entry.deadline ~= 0 and entry.deadline <= now
        -- One that will be late has not been so yet.
        if looked - #grants >= most_lost or late and is_ahead() then
          blocked = true
          break
        elseif late then
          expire(group, entry)
        elseif is_live(group, entry) then
          local worker = entry.task and worker_for(group, entry.task)
          if entry.task and worker == nil then
            -- Nobody is to wait for one that nobody can run.
            park(group, p, entry)
          elseif #grants >= batch or worker == false or not fits(group, costs_of(entry.cost)) then
            blocked, group.busy = true, worker == false
            break
          else
            charge(group, entry.cost, entry.id)
            entry.priority, entry.worker = p, worker
            if worker then
              worker.free = worker.free - 1
            end
            grants[#grants + 1] = entry
          end
        end
        popped, looked = popped + 1, looked + 1
        count(group, p, entry, -1)
      end
    end
    pops[p] = popped
    if blocked then
      break
    end
  end
  lost_left = lost_left - (looked - #grants)
  return grants, pops
end

local function commit(group, grants, pops, grace)
  local index, remaining, reset
  if #grants > 0 then
    index, remaining, reset = state_of(group, 0)
  end
  save_charges(group)
  save_parking(group, grace)
  if #grants > 0 then
    local records, leases, told, owners, life = {}, {}, {}, {}, QUEUE_TTL
    local stamp, state = 'G ' .. int(now) .. ' ', ' ' .. int(index) .. ' ' .. int(remaining) .. ' ' .. int(reset) .. ' '
    local lease, level, prefix = int(now + client_lease), nil, nil
    for n, entry in ipairs(grants) do
      if entry.priority ~= level then
        level = entry.priority
        prefix = stamp .. int(level) .. state
      end
      records[2 * n - 1], records[2 * n] = entry.id, prefix .. entry.text
      -- Redis looks through those before one that it adds, up to 128 of them: last ones first there are few.
      local at = 2 * (#grants - n)
      leases[at + 1], leases[at + 2] = lease, entry.id
      local owner = entry.worker and entry.worker.client or entry.client
      local kind = entry.worker and 't ' .. group.driver or 'g'
      life = entry.worker and TASK_TTL or life
      told[owner] = told[owner] or {}
      local message = told[owner][kind]
      if not message then
        message = { kind }
        told[owner][kind], owners[#owners + 1] = message, { owner, message }
      end
      message[#message + 1] = entry.seq
    end
    redis.call('HSET', group.records, unpack(records))
    redis.call('ZADD', group.leases, unpack(leases))
    keep_records(group, life)
    for _, worker in ipairs(group.able or {}) do
      save_worker(group, worker)
    end
    for _, owner in ipairs(owners) do
      tell(owner[1], table.concat(owner[2], ' '))
    end
  end
  for p, popped in pairs(pops) do
    if popped > 0 then
      redis.call('LTRIM', group.queues[p], popped, '-1')
    end
  end
end

-- us until the head may pass, put off to when the last may that does within the slack. Those behind it are taken to cost
-- what it does.
local function next_grants(group, head, batch, slack)
  local costs, most = costs_of(entry_of(head).cost), math.min(group.depth, batch)
  local wait = wait_of(group, costs)
  if wait <= 0 then
    return wait
  elseif group.holds then
    return most > 1 and wait + slack or wait
  end
  for _, limit in ipairs(group.limits) do
    local cost = cost_of(limit, costs)
    most = cost > 0 and math.min(most, math.floor(limit.amount / cost)) or most
  end
  -- Mostly there is none, or all of them may: these are asked about first.
  local nth, latest, n = 1, wait, 2
  while nth < most do
    local ahead = {}
    for _, limit in ipairs(group.limits) do
      ahead[limit.unit] = (n - 1) * cost_of(limit, costs)
    end
    local passes = math.max(wait, (wait_for(group, costs, ahead)))
    if passes <= wait + slack then
      nth, latest = n, passes
      n = n == 2 and most or math.ceil((nth + most) / 2)
    else
      most = n - 1
      n = math.ceil((nth + most) / 2)
    end
  end
  return latest
end

-- Pops, charges and tells those who pass at the time at which the limits stand.
local function grant(group, grace)
  local grants, pops = take(group, group.most - group.granted)
  commit(group, grants, pops, grace)
  group.granted = group.granted + #grants
end

-- Grants those that pass within the lead, each for when it does or, so that they are fewer steps, up to `slack` us later;
-- us until somebody should look again, -1: nobody waits.
local function go_ahead(group, steps, slack, grace)
  for step = 0, steps do
    local head = head_of(group)
    if not head then
      return -1
    end
    if is_ahead() then
      -- As it was written.
      stand_at(group, now)
    end
    local wait = wait_of(group, costs_of(entry_of(head).cost))
    if group.busy then
      -- Where the workers are, they say when they have room.
      return UNKNOWN
    elseif step == steps or now + wait > present + lead + SPAN then
      return look_in(group, now + wait - present)
    end
    local before = group.granted
    stand_at(group, now + math.max(wait, slack))
    grant(group, grace)
    if group.granted == before then
      -- Who will be late by then has to go first.
      return now - present
    elseif group.granted == group.most then
      return 0
    end
  end
end

return run(3, function(group, a)
  local batch, slack, grace = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local owner = redis.call('GET', group.driver)
  if owner and owner ~= client then
    return { 'O', redis.call('PTTL', group.driver) * 1000 }
  end
  go_on_when_full(group)
  redis.call('SET', group.driver, client, 'PX', int(driver_lease / 1000))
  look(group)
  local durable = redis.call('EXISTS', group.tasks) == 1
  if durable then
    sweep(group, grace)
  end
  left = left or batch
  local room = math.min(batch, left - SPARE + spare)
  group.granted, group.most = 0, math.max(room, 1)
  local paused = paused_until(group) ~= 0
  if not paused then
    grant(group, grace)
  end
  local head = head_of(group)
  if head then
    if leads(group) and not paused then
      local steps = math.max(floor(MOST_STEPS / tonumber(ARGV[6]) / #group.limits), 1)
      steps = group.granted < room and steps or 0
      group.next = and_back(go_ahead, group, steps, math.min(slack, LONGEST_STEP), grace)
      head = head_of(group)
    else
      group.next = group.busy and UNKNOWN or next_grants(group, head, batch, slack)
    end
    keep(group)
  end
  left = left - group.granted
  local soonest = durable and next_of(group)
  if soonest then
    group.next = head and math.min(group.next, soonest) or soonest
  elseif not head then
    redis.call('DEL', group.driver)
  end
  return { 'P', group.granted }
end)
