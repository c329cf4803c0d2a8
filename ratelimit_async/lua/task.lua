-- Purpose: durable tasks: submits, begins, renews and ends them, and tells what became of them.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is op, id, five arguments and again (1: an earlier sending may have arrived)
--          submit: 'name priority costs wait most keep attach' (priority 0 first; us to wait at most, -1: no bound; attempts;
--                  us to keep its end; 1: this client is told of its end), arguments, most bytes of them
--          begin: tasks this worker can take besides; decline: the same
--          finish: token, outcome (S, F failed, K not to be tried again, B given back), us to the next attempt,
--                  'room error' (percent-encoded), result
--          work: room (-1: this worker leaves), names, 'id token costs' of what it runs (costs '.': given back already), grace (us)
--          which: ids; outcome: 1: this client is told of its end; cancel: reason, percent-encoded, 1: only if it waits; dead: first, last; requeue; delete
-- Reply:   submit: {'Q', position, estimate us}, {'F'} full, {'L'} too large, or as outcome where the id is known
--          begin: {attempts, most, stamp, costs, name, arguments, enqueued us, us by Redis' clock}, or '' where it is not to be
--          run; where the stamp is later, it is run no earlier than that
--          finish: what it is now, Q, S, D; or '' where the token is not valid any more
--          work: {tasks that have not ended, {ids not to be run any more}, {ids granted and not begun}}
--          which: {{ids that have ended}, {ids that are not known}}
--          outcome: {state, attempts, error, result, name} or {''}; cancel: what it was, '' unknown
--          dead: {id, when, attempts, name, error, arguments, ...}; requeue, delete: 1, or 0 where there is none
-- Cost:    O(log tasks); cancel O(depth); work and dead O(what is told)
-- @include prelude
-- @include limits
-- @include queue
-- @include room
-- @include tasks
-- @include run

local ops = {}

local function attach(group, task)
  if not string.find(',' .. task.waiters .. ',', ',' .. client .. ',', 1, true) then
    task.waiters = task.waiters == '-' and client or task.waiters .. ',' .. client
    save_task(group, task)
  end
end

local function outcome_of(group, task, attached)
  local ended = task.state ~= 'Q' and task.state ~= 'R'
  if attached and not ended then
    attach(group, task)
  end
  return { task.state, task.attempts, task.error, task.state == 'S' and task.body or '', task.name }
end

function ops.submit(group, id, text, body, most_bytes)
  local name, level, costs, wait, most, keeps, told =
    string.match(text, '^(%S+) (%d+) (%S+) (%-?%d+) (%d+) (%d+) (%d)$')
  local known = task_of(group, id)
  if known then
    -- Written again, so that whoever waits for replicas to confirm it waits for this.
    save_task(group, known)
    return outcome_of(group, known, told == '1')
  elseif #body > tonumber(most_bytes) then
    return { 'L' }
  end
  look(group)
  local priority = math.min(tonumber(level) + 1, group.priorities)
  local position = ahead_of(group, priority) + 1
  local estimate = wait_for(group, costs_of(costs), costs_ahead(group, priority) or {})
  if not has_room(group, priority) then
    return { 'F' }
  end
  local task = {
    id = id,
    state = 'Q',
    priority = int(priority),
    attempts = 0,
    most = most,
    enqueued = int(arrival(group)),
    deadline = tonumber(wait) >= 0 and int(now + tonumber(wait)) or '0',
    stamp = '0',
    keeps = keeps,
    costs = costs,
    name = name,
    holder = '-',
    waiters = told == '1' and client or '-',
    error = '',
    body = body,
  }
  save_task(group, task)
  append(group, priority, entry_for(task))
  group.unheard = true
  return { 'Q', position, math.max(estimate, paused_until(group) - now) }
end

-- The last that a call says is what counts.
local function save_room(group)
  for _, worker in ipairs(group.room and workers_of(group) or {}) do
    if worker.client == client then
      worker.free = tonumber(group.room)
      save_worker(group, worker)
    end
  end
end

local function grant_for(group, id)
  local value = redis.call('HGET', group.records, '*.' .. id)
  local grant = value and grant_of(value)
  if grant then
    forget(group, { '*.' .. id })
  end
  return grant
end

function ops.begin(group, id, room, _, _, _, _, again)
  local grant, task = grant_for(group, id), task_of(group, id)
  watch(group)
  group.room = room
  if grant and task and task.state == 'Q' then
    task.state, task.attempts, task.holder, task.stamp = 'R', task.attempts + 1, client, int(grant.stamp)
    save_task(group, task)
    put(group.started, now + client_lease, token_of(task))
    if group.holds then
      redis.call('ZADD', group.held, 'XX', int(now + client_lease), '*.' .. id .. ' ' .. task.costs)
    end
  elseif not (again and task and task.state == 'R' and task.holder == client) then
    if grant then
      give_back(group, '*.' .. id, grant.entry.cost, grant.stamp)
    end
    return ''
  end
  return { task.attempts, task.most, task.stamp, task.costs, task.name, task.body, task.enqueued, now }
end

function ops.decline(group, id, room)
  local grant = grant_for(group, id)
  watch(group)
  group.room = room
  if grant then
    give_back(group, '*.' .. id, grant.entry.cost, grant.stamp)
    insert(group, math.min(grant.priority, group.priorities), grant.entry)
  end
  return 1
end

function ops.finish(group, id, token, outcome, wait, rest, result, again)
  local room, error = string.match(rest, '^(%d+) (.*)$')
  local task = task_of(group, id)
  watch(group)
  group.room = room
  group.wake = true
  if redis.call('ZREM', group.started, id .. ' ' .. token) == 0 or not task or task.state ~= 'R' then
    local same = again and task and token_of(task) == id .. ' ' .. token
    return same and task.state or ''
  end
  task.error = error
  if outcome == 'S' then
    task.body = result
    end_task(group, task, 'S')
  elseif outcome == 'K' or outcome == 'F' and is_last(task) then
    end_task(group, task, 'D')
  else
    task.attempts = task.attempts - (outcome == 'B' and 1 or 0)
    delay(group, task, now + tonumber(wait))
    group.due = tonumber(wait)
  end
  return task.state
end

function ops.work(group, _, room, names, running, grace)
  group.room, group.able = nil, nil
  if room == '-1' then
    redis.call('HDEL', group.workers, client)
  else
    local worker = { client = client, lease = int(now + client_lease), free = tonumber(room), names = names }
    save_worker(group, worker)
  end
  local lost, granted = {}, {}
  for id, token, costs in string.gmatch(running, '(%S+) (%S+) (%S+)') do
    if redis.call('ZSCORE', group.started, id .. ' ' .. token) then
      put(group.started, now + client_lease, id .. ' ' .. token)
      if group.holds and costs ~= '.' then
        part_of('held').renew(group, '*.' .. id, costs)
      end
    else
      lost[#lost + 1] = id
    end
  end
  look(group)
  sweep(group, tonumber(grace))
  for _, id in ipairs(redis.call('ZRANGE', group.leases, '0', BATCH - 1)) do
    granted[#granted + 1] = string.match(id, '^%*%.(.+)$')
  end
  local ended = redis.call('ZCARD', group.ended) + redis.call('ZCARD', group.dead)
  local left = redis.call('HLEN', group.tasks) - ended
  group.wake = true
  if left > 0 and redis.call('EXISTS', group.driver) == 0 then
    group.due = next_of(group)
  end
  return { left, lost, granted }
end

function ops.outcome(group, id, attached)
  local task = task_of(group, id)
  return task and outcome_of(group, task, attached == '1') or { '' }
end

-- Without their bodies: there may be many.
function ops.which(group, _, ids)
  local names, ended, unknown = {}, {}, {}
  for id in string.gmatch(ids, '%S+') do
    names[#names + 1] = id
  end
  local at, died = redis.call('ZMSCORE', group.ended, unpack(names)), redis.call('ZMSCORE', group.dead, unpack(names))
  for i, id in ipairs(names) do
    if at[i] or died[i] then
      ended[#ended + 1] = id
    elseif redis.call('HEXISTS', group.tasks, id) == 0 then
      unknown[#unknown + 1] = id
    end
  end
  return { ended, unknown }
end

-- Wherever it waits: in the queue, granted, delayed or parked.
local function take_out(group, id)
  local grant = grant_for(group, id)
  if grant then
    give_back(group, '*.' .. id, grant.entry.cost, grant.stamp)
    return
  end
  local entry, priority = find(group, '*.' .. id)
  if entry then
    redis.call('LREM', group.queues[priority], '1', entry.text)
    count(group, priority, entry, -1)
    return
  end
  for _, key in ipairs({ group.delayed, group.parked }) do
    for _, member in ipairs(redis.call('ZRANGE', key, '0', '-1')) do
      if string.match(member, ' %*%S+ (%S+)') == id then
        redis.call('ZREM', key, member)
        return
      end
    end
  end
end

function ops.cancel(group, id, reason, waiting_only)
  local task = task_of(group, id)
  local was = task and task.state or ''
  if was == 'R' and waiting_only == '1' then
    return ''
  end
  watch(group)
  if was == 'R' then
    redis.call('ZREM', group.started, token_of(task))
    tell(task.holder, 's ' .. group.driver .. ' ' .. id)
  elseif was == 'Q' then
    take_out(group, id)
  end
  if was == 'R' or was == 'Q' then
    end_task(group, task, 'X', reason)
    return was
  end
  return ''
end

function ops.dead(group, _, first, last)
  local reply = {}
  local dead = redis.call('ZRANGE', group.dead, first, last, 'WITHSCORES')
  for i = 1, #dead, 2 do
    local task = task_of(group, dead[i])
    if task then
      for _, value in ipairs({ task.id, dead[i + 1], task.attempts, task.name, task.error, task.body }) do
        reply[#reply + 1] = value
      end
    end
  end
  return reply
end

function ops.requeue(group, id)
  local task = task_of(group, id)
  if not task or redis.call('ZREM', group.dead, id) == 0 then
    return 0
  end
  look(group)
  task.state, task.attempts, task.enqueued, task.deadline = 'Q', 0, int(arrival(group)), '0'
  save_task(group, task)
  append(group, level_of(group, task), entry_for(task))
  group.unheard = true
  return 1
end

function ops.delete(group, id)
  if redis.call('ZREM', group.dead, id) == 0 then
    return 0
  end
  return redis.call('HDEL', group.tasks, id)
end

return run(8, function(group, a)
  local again = ARGV[a + 7] == '1'
  if ARGV[a] ~= 'submit' and ARGV[a] ~= 'requeue' then
    go_on_when_full(group)
  end
  watch(group)
  return ops[ARGV[a]](group, ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5], ARGV[a + 6], again)
end, function(group)
  save_room(group)
  if group.unheard and redis.call('EXISTS', group.workers) == 0 then
    tell('all', 'k ' .. group.driver)
  end
  nudge(group, group.wake)
  -- A retry, or a lease, that nobody may be looking out for.
  if group.due and group.next < 0 then
    local owner = redis.call('GET', group.driver)
    if owner and owner ~= client then
      tell(owner, 'w ' .. group.driver)
    elseif driver_lease > 0 then
      redis.call('SET', group.driver, client, 'PX', int(driver_lease / 1000))
      group.next = group.due
    end
  end
end)
