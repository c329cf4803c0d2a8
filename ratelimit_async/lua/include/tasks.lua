-- Durable tasks of a key.
--
-- tasks: id -> 'state priority attempts most enqueued deadline stamp keep costs name holder waiters\nerror\nbody'
--   state: Q waits (in the queue, granted, delayed or parked); R runs; S succeeded; D is dead; X is cancelled or expired
--   priority: 1 first; attempts: begun so far, of at most `most`; enqueued, deadline (0: none), stamp (when it was charged
--   last): us; keep: us for which its end is kept; holder: the client that ran it last, '-'; waiters: the clients to tell
--   of its end, joined by ',', or '-'; error: of its last attempt, percent-encoded; body: arguments or, for S, the result
-- workers: client -> 'lease free name...': until when, us; how many tasks it can take; the names of those it has
-- started: 'id attempts@holder' -> when its lease ends, us: who takes that member out may say how the attempt ended
-- delayed, parked: 'priority entry' -> when it goes back to the queue, us; when it was put aside, us, for want of a
--   worker that has it. dead: id -> when, us. ended: id -> when it is forgotten, us.

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
    priority = tonumber(priority),
    attempts = tonumber(attempts),
    most = tonumber(most),
    enqueued = tonumber(enqueued),
    deadline = tonumber(deadline),
    stamp = tonumber(stamp),
    keeps = tonumber(keeps),
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
    int(task.priority),
    int(task.attempts),
    int(task.most),
    int(task.enqueued),
    int(task.deadline),
    int(task.stamp),
    int(task.keeps),
    task.costs,
    task.name,
    task.holder,
    task.waiters,
  }
  redis.call('HSET', group.tasks, task.id, table.concat(head, ' ') .. '\n' .. task.error .. '\n' .. task.body)
  redis.call('PEXPIRE', group.tasks, TASK_TTL)
end

local function entry_for(task)
  local fields = { '*' .. task.name, task.id, int(task.enqueued), int(task.deadline), task.costs }
  return entry_of(table.concat(fields, ' '))
end

local function level_of(group, task)
  return math.min(task.priority, group.priorities)
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
    put(group.ended, now + task.keeps, task.id)
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

local function bring_back(group, from, member)
  local priority, text = string.match(member, '^(%d+) (.+)$')
  insert(group, math.min(tonumber(priority), group.priorities), entry_of(text))
  redis.call('ZREM', from, member)
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
  redis.call('PEXPIRE', group.workers, int(QUEUE_TTL + client_lease / 1000))
end

local function range(key, most)
  return redis.call('ZRANGEBYSCORE', key, '-inf', int(most), 'LIMIT', 0, BATCH)
end

-- What time brings: retries come due, leases of what runs end, what has ended is forgotten, what nobody has is given up.
local function sweep(group, grace)
  if group.swept then
    return
  end
  group.swept = true
  for _, member in ipairs(range(group.delayed, now)) do
    bring_back(group, group.delayed, member)
  end
  for _, member in ipairs(range(group.started, now)) do
    local task = task_of(group, string.match(member, '^(%S+)'))
    if task and task.state == 'R' and token_of(task) == member then
      task.error = 'its%20process%20is%20gone'
      if task.attempts >= task.most then
        end_task(group, task, 'D')
      else
        task.state = 'Q'
        save_task(group, task)
        insert(group, level_of(group, task), entry_for(task))
      end
    end
    redis.call('ZREM', group.started, member)
  end
  local parked = range(group.parked, now)
  for _, member in ipairs(#parked > 0 and #workers_of(group) > 0 and parked or {}) do
    local entry = entry_of(string.match(member, '^%d+ (.+)$'))
    if group.names[entry.task] then
      bring_back(group, group.parked, member)
    elseif tonumber(redis.call('ZSCORE', group.parked, member)) + grace <= now then
      local task = task_of(group, entry.seq)
      if task then
        end_task(group, task, 'D', 'no%20process%20has%20a%20task%20of%20this%20name')
      end
      redis.call('ZREM', group.parked, member)
    end
  end
  for _, id in ipairs(range(group.ended, now)) do
    redis.call('HDEL', group.tasks, id)
    redis.call('ZREM', group.ended, id)
  end
  for _, id in ipairs(range(group.dead, now - TASK_TTL * 1000)) do
    redis.call('HDEL', group.tasks, id)
    redis.call('ZREM', group.dead, id)
  end
end

-- us until time brings something again, or nil.
local function next_of(group, grace)
  local soonest
  local function at(key, later)
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then
      local wait = math.max(tonumber(first[2]) + later - now, 1000)
      soonest = math.min(soonest or wait, wait)
    end
  end
  at(group.delayed, 0)
  at(group.started, 0)
  if redis.call('EXISTS', group.parked) == 1 and #workers_of(group) > 0 then
    at(group.parked, grace)
  end
  return soonest
end
