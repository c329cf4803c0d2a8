-- Durable tasks of a key.
--
-- tasks: id -> 'state priority attempts most enqueued deadline stamp keep costs name holder waiters\nerror\nbody'
--   state: Q waits (in the queue, granted, delayed or parked); R runs; S succeeded; D is dead; X is cancelled or expired
--   priority: 1 first; attempts: begun so far, of at most `most`; enqueued, deadline (0: none), stamp (when it was charged
--   last): us; keep: us for which its end is kept; holder: the client that ran it last, '-'; waiters: the clients to tell
--   of its end, joined by ',', or '-'; error: of its last attempt, percent-encoded; body: arguments or, for S, the result
-- workers: client -> 'lease free name...': until when, us; how many tasks it can take; the names of those it has
-- started: 'id attempts@holder' -> when its lease ends, us: who takes that member out may say how the attempt ended
-- delayed: 'priority entry' -> when it goes back to the queue, us. parked: 'name since arrival priority entry', all of
--   score 0: put aside since then, us, for want of a worker that has it; so those of a name come back in their order
-- dead: id -> when, us. ended: id -> when it is forgotten, us.

function open_tasks(group, k)
  group.tasks, group.workers, group.started, group.delayed = KEYS[k], KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  group.parked, group.dead, group.ended = KEYS[k + 4], KEYS[k + 5], KEYS[k + 6]
  return k + 7
end

local function put(key, score, member)
  redis.call('ZADD', key, int(score), member)
  redis.call('PEXPIRE', key, TASK_TTL)
end

local TASK = '^(%u) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+)\n([^\n]*)\n(.*)$'

-- All numbers but `attempts` stay as they are written: reading and writing one takes longer than most else here.
local function task_of(group, id)
  local record = redis.call('HGET', group.tasks, id)
  if not record then
    return
  end
  local state, priority, attempts, most, enqueued, deadline, stamp, keeps, costs, name, holder, waiters, error, body =
    string.match(record, TASK)
  if not state then
    -- Not ours, or written by a version to come.
    return
  end
  return {
    id = id,
    state = state,
    priority = priority,
    attempts = tonumber(attempts),
    most = most,
    enqueued = enqueued,
    deadline = deadline,
    stamp = stamp,
    keeps = keeps,
    costs = costs,
    name = name,
    holder = holder,
    waiters = waiters,
    error = error,
    body = body,
  }
end

local function save_task(group, task)
  local head = {
    task.state,
    task.priority,
    int(task.attempts),
    task.most,
    task.enqueued,
    task.deadline,
    task.stamp,
    task.keeps,
    task.costs,
    task.name,
    task.holder,
    task.waiters,
  }
  redis.call('HSET', group.tasks, task.id, table.concat(head, ' ') .. '\n' .. task.error .. '\n' .. task.body)
  redis.call('PEXPIRE', group.tasks, TASK_TTL)
end

local function entry_for(task)
  return new_entry('*' .. task.name, task.id, task.enqueued, task.deadline, task.costs)
end

local function level_of(group, task)
  return math.min(tonumber(task.priority), group.priorities)
end

local function is_last(task)
  return task.attempts >= tonumber(task.most)
end

local function token_of(task)
  return task.id .. ' ' .. int(task.attempts) .. '@' .. task.holder
end

-- How a task ends: tells whoever waits for it.
local function end_task(group, task, state, error)
  task.state, task.error = state, error or task.error
  save_task(group, task)
  if state == 'D' then
    put(group.dead, now, task.id)
  else
    put(group.ended, now + tonumber(task.keeps), task.id)
  end
  for waiter in string.gmatch(task.waiters ~= '-' and task.waiters or '', '[^,]+') do
    tell(waiter, 'f ' .. group.driver .. ' ' .. task.id)
  end
end

local function delay(group, task, due)
  task.state = 'Q'
  save_task(group, task)
  put(group.delayed, due, level_of(group, task) .. ' ' .. entry_for(task).text)
end

local function give_up_at(group, time)
  group.gives_up = math.min(group.gives_up or time, time)
end

local DELAYED, PARKED = '^(%d+) (%*.+)$', '^%S+ %d+ %d+ (%d+) (%*.+)$'

local function bring_back(group, from, member, pattern)
  local priority, text = string.match(member, pattern)
  -- What is not ours only goes.
  if text then
    insert(group, math.min(tonumber(priority), group.priorities), entry_of(text))
  end
  redis.call('ZREM', from, member)
end

-- Aside, where nobody waits behind it: until a worker has it, or others are there and it is given up.
local function park(group, priority, entry)
  group.parking = group.parking or {}
  table.insert(group.parking, '0')
  table.insert(group.parking, table.concat({ entry.task, int(now), entry.since, priority, entry.text }, ' '))
end

local function save_parking(group, grace)
  if group.parking then
    redis.call('ZADD', group.parked, unpack(group.parking))
    redis.call('PEXPIRE', group.parked, TASK_TTL)
    give_up_at(group, now + grace)
    group.parking = nil
  end
end

local function workers_of(group)
  if not group.able then
    group.able, group.names = {}, {}
    local all = redis.call('HGETALL', group.workers)
    for i = 1, #all, 2 do
      local lease, free, names = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
      if tonumber(lease) <= now then
        redis.call('HDEL', group.workers, all[i])
      else
        local worker = { client = all[i], lease = lease, free = tonumber(free), names = names }
        group.able[#group.able + 1] = worker
        for name in string.gmatch(names, '%S+') do
          group.names[name] = group.names[name] or {}
          table.insert(group.names[name], worker)
        end
      end
    end
  end
  return group.able
end

-- The worker with the most room that has a task; false: they are all busy; nil: none has it.
local function worker_for(group, name)
  workers_of(group)
  local able = group.names[name]
  if not able then
    return nil
  end
  local best
  for i = 1, #able do
    local worker = able[(i + now) % #able + 1]
    if worker.free > 0 and (not best or worker.free > best.free) then
      best = worker
    end
  end
  return best or false
end

local function save_worker(group, worker)
  redis.call('HSET', group.workers, worker.client, worker.lease .. ' ' .. int(worker.free) .. ' ' .. worker.names)
  redis.call('PEXPIRE', group.workers, QUEUE_TTL)
end

-- Of what has to be put back or given up, a call does so many for all its groups together, and one for each at least.
local SPARE = 8
local spare = SPARE

local function due(group, key, most)
  local found = redis.call('ZRANGEBYSCORE', key, '-inf', int(most), 'LIMIT', '0', int(math.max(spare, 1)))
  group.more = group.more or #found > 0 and #found >= spare
  spare = spare - #found
  return found
end

local function forget_ends(group, key, most)
  local ids = redis.call('ZRANGEBYSCORE', key, '-inf', int(most), 'LIMIT', '0', BATCH)
  if #ids > 0 then
    redis.call('HDEL', group.tasks, unpack(ids))
    redis.call('ZREM', key, unpack(ids))
  end
end

local function of_name(group, name)
  local members = redis.call('ZRANGE', group.parked, '[' .. name .. ' ', '(' .. name .. '!', 'BYLEX', 'LIMIT', '0', int(spare))
  spare = spare - #members
  return members
end

local function give_up(group, member, grace)
  local since, id = string.match(member, '^%S+ (%d+) %d+ %d+ %S+ (%S+)')
  if tonumber(since) + grace > now then
    return give_up_at(group, tonumber(since) + grace)
  end
  local task = task_of(group, id)
  if task then
    end_task(group, task, 'D', 'no%20process%20has%20a%20task%20of%20this%20name')
  end
  redis.call('ZREM', group.parked, member)
end

-- By name, so that what no worker has hides nothing that one has.
local function unpark(group, grace)
  local from = '-'
  while spare > 0 do
    local first = redis.call('ZRANGE', group.parked, from, '+', 'BYLEX', 'LIMIT', '0', '1')[1]
    if not first then
      return
    end
    local name, since = string.match(first, '^(%S+) (%d+) %d+ %d+ %*%S+ %S+ %d+')
    from = name and '[' .. name .. '!' or '(' .. first
    if not name then
      -- Not ours.
      redis.call('ZREM', group.parked, first)
    elseif group.names[name] or tonumber(since) + grace <= now then
      for _, member in ipairs(of_name(group, name)) do
        if group.names[name] then
          bring_back(group, group.parked, member, PARKED)
        else
          give_up(group, member, grace)
        end
      end
    else
      give_up_at(group, tonumber(since) + grace)
    end
  end
  group.more = true
end

-- What time brings: retries come due, leases of what runs end, what has ended is forgotten, what nobody has is given up.
local function sweep(group, grace)
  if group.swept then
    return
  end
  group.swept = true
  for _, member in ipairs(due(group, group.delayed, now)) do
    bring_back(group, group.delayed, member, DELAYED)
  end
  for _, member in ipairs(due(group, group.started, now)) do
    local task = task_of(group, string.match(member, '^(%S+)'))
    if task and task.state == 'R' and token_of(task) == member then
      task.error = 'its%20process%20is%20gone'
      if is_last(task) then
        end_task(group, task, 'D')
      else
        task.state = 'Q'
        save_task(group, task)
        insert(group, level_of(group, task), entry_for(task))
      end
    end
    redis.call('ZREM', group.started, member)
  end
  if redis.call('EXISTS', group.parked) == 1 and #workers_of(group) > 0 then
    unpark(group, grace)
  end
  forget_ends(group, group.ended, now)
  forget_ends(group, group.dead, now - TASK_TTL * 1000)
end

-- us until time brings something again, or nil.
local function next_of(group)
  local soonest = group.more and 1000
  local function at(time)
    local wait = math.max(tonumber(time) - now, 1000)
    soonest = math.min(soonest or wait, wait)
  end
  for _, key in ipairs({ group.delayed, group.started }) do
    local first = redis.call('ZRANGE', key, '0', '0', 'WITHSCORES')
    if first[2] then
      at(first[2])
    end
  end
  if group.gives_up and #workers_of(group) > 0 then
    at(group.gives_up)
  end
  return soonest
end
