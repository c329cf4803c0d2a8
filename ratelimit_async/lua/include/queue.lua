-- The queue of a key: one list per priority, whole entries in it, the head at the left.
--
-- entry: 'client seq enqueued deadline costs', and ' since' once it was lifted to a better level; times in us, deadline
-- 0 for none. Most have no deadline, cost the usual and are where they joined: those are 'client seq enqueued'. Within a
-- level, the order is that of `since`, by default `enqueued`. id: 'client.seq'.
-- records: id -> 'G stamp priority limit remaining reset entry' (granted, not yet claimed) or 'D reason' (dropped).
-- leases: id -> when its record is taken back. clients: client -> when it counts as gone, and '*' -> never.
-- An entry of a durable task has '*name' for a client; it waits for any process that has the task, and its id is '*.seq'.
-- pause: until when, us, or -1. work: 'priority unit' -> what those waiting cost beyond the usual.

-- Reading a number takes longer than most else here: times stay as they are written, but for the deadline, which all are
-- asked for.
local function entry_as(text, owner, seq, enqueued, deadline, cost, since)
  local task = match(owner, '^%*(.+)$')
  return {
    text = text,
    client = owner,
    task = task,
    seq = seq,
    id = (task and '*' or owner) .. '.' .. seq,
    enqueued = enqueued,
    deadline = tonumber(deadline) or 0,
    cost = cost ~= '' and cost or '-',
    since = since ~= '' and since or enqueued,
    priority = nil,
    worker = nil,
  }
end

local function entry_of(text)
  local owner, seq, enqueued, deadline, cost, since = match(text, '^(%S+) (%S+) (%d+) ?(%d*) ?(%S*) ?(%d*)$')
  if not owner then
    -- Not ours: past its deadline, so that whoever looks clears it away.
    owner, seq, enqueued, deadline, cost, since = '', '', '0', '1', '-', ''
  end
  return entry_as(text, owner, seq, enqueued, deadline, cost, since)
end

-- One that comes to the queue, its times as they are written; with `since`, to a better level than it had.
local function new_entry(owner, seq, enqueued, deadline, cost, since)
  local text = owner .. ' ' .. seq .. ' ' .. enqueued
  if since then
    text = text .. ' ' .. deadline .. ' ' .. cost .. ' ' .. since
  elseif deadline ~= '0' or cost ~= '-' then
    text = text .. ' ' .. deadline .. ' ' .. cost
  end
  return entry_as(text, owner, seq, enqueued, deadline, cost, since or '')
end

local function since_of(entry)
  return tonumber(entry.since)
end

local function is_alive(group, owner)
  local alive = group.alive[owner]
  if alive == nil then
    local lease = redis.call('ZSCORE', group.clients, owner)
    alive = lease and tonumber(lease) > now or false
    group.alive[owner] = alive
  end
  return alive
end

-- One that is past its deadline or whose process is gone is never granted, so never charged. What becomes of a task is
-- for the scripts that know of tasks to say.
local function is_live(group, entry)
  return entry.task or (entry.deadline == 0 or entry.deadline > now) and is_alive(group, entry.client)
end

local function depths_of(group)
  if not group.depths then
    group.depths, group.depth = {}, 0
    for p, queue in ipairs(group.queues) do
      group.depths[p] = is_quiet(group) and 0 or redis.call('LLEN', queue)
      group.depth = group.depth + group.depths[p]
    end
  end
  return group.depths
end

local function best_of(group)
  local depths = depths_of(group)
  for p = 1, group.priorities do
    if depths[p] > 0 then
      return p
    end
  end
end

function save_work(group)
  for field, extra in pairs(group.extra) do
    if extra ~= 0 then
      redis.call('HINCRBY', group.work, field, int(extra))
    end
  end
  if group.depth == 0 then
    redis.call('DEL', group.work)
  else
    redis.call('PEXPIRE', group.work, QUEUE_TTL)
  end
  group.extra = nil
end

-- An entry has come to (1) or gone from (-1) a level; what it costs beyond the usual is kept beside its level's length.
local function count(group, priority, entry, sign)
  local depths = depths_of(group)
  depths[priority] = depths[priority] + sign
  group.depth = group.depth + sign
  if sign < 0 then
    group.taken_out, group.inserted = true, nil
  end
  if group.places then
    group.places[entry.id] = sign > 0 and { entry.text, priority, depths[priority] } or nil
  end
  if entry.cost ~= '-' then
    group.extra = group.extra or {}
    for unit, cost in pairs(costs_of(entry.cost)) do
      local field = priority .. ' ' .. unit
      group.extra[field] = (group.extra[field] or 0) + sign * (cost - (group.usual[unit] or 0))
    end
  end
end


local function ahead_of(group, priority)
  local ahead = 0
  for p = 1, priority do
    ahead = ahead + depths_of(group)[p]
  end
  return ahead
end

-- By unit, what those waiting cost that go before one more of this priority.
local function costs_ahead(group, priority)
  local waiting = ahead_of(group, priority)
  if waiting == 0 then
    return nil
  end
  if group.extra then
    save_work(group)
  end
  local ahead = {}
  for _, limit in ipairs(group.limits) do
    ahead[limit.unit] = waiting * (group.usual[limit.unit] or 0)
  end
  local work = redis.call('HGETALL', group.work)
  for i = 1, #work, 2 do
    local p, unit = string.match(work[i], '^(%d+) (%S+)$')
    if tonumber(p) <= priority and ahead[unit] then
      ahead[unit] = math.max(ahead[unit] + tonumber(work[i + 1]), 0)
    end
  end
  return ahead
end

local function keep(group)
  be_seen(group, QUEUE_TTL)
  for p, queue in ipairs(group.queues) do
    if depths_of(group)[p] > 0 then
      live(queue, QUEUE_TTL)
    end
  end
  live(group.work, QUEUE_TTL)
end

local function keep_records(group, ms)
  live(group.records, ms)
  live(group.leases, ms)
  be_seen(group, ms)
end

local function record(group, id, value)
  redis.call('HSET', group.records, id, value)
  redis.call('ZADD', group.leases, int(now + client_lease), id)
  keep_records(group, QUEUE_TTL)
end

local function forget(group, ids)
  redis.call('HDEL', group.records, unpack(ids))
  redis.call('ZREM', group.leases, unpack(ids))
  group.taken_out = true
end

local function drop(group, entry, reason)
  record(group, entry.id, 'D ' .. reason)
  tell(entry.client, 'g ' .. entry.seq)
end

local function grant_of(value)
  local stamp, priority, text = string.match(value, '^G (%d+) (%d+) %d+ %d+ %d+ (.+)$')
  if stamp then
    return { stamp = tonumber(stamp), priority = tonumber(priority), entry = entry_of(text) }
  end
end

local function arrived(group, priority, entry)
  group.moved = true
  count(group, priority, entry, 1)
  if entry.task then
    live(group.queues[priority], TASK_TTL)
  end
  be_seen(group, entry.task and TASK_TTL or QUEUE_TTL)
end

local function append(group, priority, entry)
  redis.call('RPUSH', group.queues[priority], entry.text)
  arrived(group, priority, entry)
end

-- When one more arrives, us: those of one script call in their order, too.
local function arrival(group)
  group.arrivals = (group.arrivals or -1) + 1
  return now + group.arrivals
end

-- When an entry came to its level, without reading all else of it.
local function since_in(text)
  local enqueued, since = match(text, '^%S+ %S+ (%d+) ?%d* ?%S* ?(%d*)$')
  return tonumber(since ~= '' and since or enqueued) or 0
end

-- Where in a level those begin that came to it then or later, counted from 0, and the first of them. `near`: a place
-- before which they do not, and probably not far behind it.
local function first_since(group, priority, least, near)
  local queue, first, past = group.queues[priority], near or 0, depths_of(group)[priority]
  if past == 0 or since_in(redis.call('LINDEX', queue, '-1')) < least then
    -- Those that come back together mostly come in their order.
    return past
  end
  local found
  local step = near and 1
  while first < past do
    local middle = step and math.min(first + step, past) - 1 or math.floor((first + past) / 2)
    local text = redis.call('LINDEX', queue, middle)
    if since_in(text) < least then
      first, step = middle + 1, step and 2 * step
    else
      past, found, step = middle, text, nil
    end
  end
  return first, found
end

-- Arrival order is kept: an entry that comes back stands before all that came after it. Those that do have mostly been
-- there longest, and one after the other.
local function insert(group, priority, entry)
  local since, last = since_of(entry), group.inserted
  local behind = last and last.priority == priority and last.since <= since
  local place, after = first_since(group, priority, since + 1, behind and last.place + 1 or 0)
  if after then
    redis.call('LINSERT', group.queues[priority], 'BEFORE', after, entry.text)
    arrived(group, priority, entry)
  else
    append(group, priority, entry)
  end
  group.inserted = { priority = priority, since = since, place = place }
end

-- Takes back what was granted and not claimed within its lease; the grant goes to the next, its owner, if alive, to its place.
local function reap(group)
  local lapsed = redis.call('ZRANGEBYSCORE', group.leases, '-inf', int(now), 'LIMIT', '0', BATCH)
  if #lapsed == 0 then
    return
  end
  local values = redis.call('HMGET', group.records, unpack(lapsed))
  local grants = {}
  for _, value in ipairs(values) do
    local grant = value and grant_of(value)
    if grant then
      grants[#grants + 1] = grant
      give_back(group, grant.entry.id, grant.entry.cost, grant.stamp)
    end
  end
  save(group)
  for _, grant in ipairs(grants) do
    if is_live(group, grant.entry) then
      insert(group, math.min(grant.priority, group.priorities), grant.entry)
    end
  end
  forget(group, lapsed)
end

-- Bounded: what is left over is found by the next script that looks.
local function tidy(group)
  local depths = depths_of(group)
  for p, queue in ipairs(group.queues) do
    for _ = 1, math.min(depths[p], 16) do
      local head = redis.call('LINDEX', queue, '0')
      local entry = head and entry_of(head)
      if not entry or is_live(group, entry) then
        break
      end
      redis.call('LPOP', queue)
      count(group, p, entry, -1)
    end
  end
end

-- Lifts, by one level, those who have waited in theirs for so long; the order within a level is that of coming to it.
local function promote(group)
  local depths = depths_of(group)
  for p = 2, group.promote > 0 and group.priorities or 0 do
    for _ = 1, math.min(depths[p], BATCH) do
      local entry = entry_of(redis.call('LINDEX', group.queues[p], '0'))
      if since_of(entry) + group.promote > now then
        break
      end
      redis.call('LPOP', group.queues[p])
      count(group, p, entry, -1)
      append(
        group,
        p - 1,
        new_entry(entry.client, entry.seq, entry.enqueued, int(entry.deadline), entry.cost, int(now))
      )
    end
  end
end

-- An entry, its level and its place there. Looked up once for all that a call looks for.
local function find(group, id)
  if not group.places then
    group.places = {}
    for p, queue in ipairs(group.queues) do
      for position, text in ipairs(redis.call('LRANGE', queue, '0', '-1')) do
        local owner, seq = string.match(text, '^(%S+) (%S+)')
        group.places[(string.sub(owner, 1, 1) == '*' and '*' or owner) .. '.' .. seq] = { text, p, position }
      end
    end
  end
  local place = group.places[id]
  if place then
    return entry_of(place[1]), place[2], place[3]
  end
end

-- The same of one that joined then, however many wait; 0: nobody knows when.
local function find_of(group, id, enqueued)
  if enqueued == 0 or group.promote > 0 then
    -- It may have come to a better level since.
    return find(group, id)
  end
  for p, queue in ipairs(group.queues) do
    local place, text = first_since(group, p, enqueued)
    local entry = text and entry_of(text)
    while entry and since_of(entry) == enqueued do
      place = place + 1
      if entry.id == id then
        return entry, p, place
      end
      text = redis.call('LINDEX', queue, place)
      entry = text and entry_of(text)
    end
  end
end

local function head_of(group)
  local best = best_of(group)
  return best and redis.call('LINDEX', group.queues[best], '0')
end

-- Every script that may move the head of the queue starts with this and ends with nudge.
local function watch(group)
  if not group.watched then
    group.watched = true
    group.head = head_of(group)
  end
end

-- Takes back and clears away what no longer counts, before a decision that others' presence bears on.
local function look(group)
  if not group.looked then
    group.looked = true
    watch(group)
    if not is_quiet(group) then
      reap(group)
      tidy(group)
      promote(group)
      if group.moved then
        -- The list that somebody was moved to may be a new one.
        keep(group)
      end
    end
  end
end

-- us for what nobody knows the end of: whoever ends it says so, and the processor looks now and then in any case.
local UNKNOWN = 60000000

-- us until the head may pass, or until somebody should look again whether it may.
local function wait_of(group, costs)
  local pause = paused_until(group)
  if pause < 0 then
    return UNKNOWN
  end
  return math.max(wait_for(group, costs), pause - now)
end

-- Whether grants may be given ahead: not where what runs counts, which ends when it likes, nor where a state knows of one
-- or two windows and of none to come.
local function leads(group)
  for _, limit in ipairs(group.limits) do
    if limit.holds or limit.kind ~= 'sw' and limit.kind ~= 'tb' then
      return false
    end
  end
  return true
end

-- us until somebody should look at a head that passes in `wait` us: so early that what is granted then has arrived by its
-- time.
local function look_in(group, wait)
  return leads(group) and math.max(wait - lead, 0) or wait
end

-- Where the head moved, or what was freed may let it pass, somebody must look at the queue: its driver; this client, if
-- it may drive and nobody does; or whoever hears.
local function nudge(group, anyway)
  local head = head_of(group)
  if not head or (head == group.head and not group.freed and not anyway) then
    return
  end
  local owner = redis.call('GET', group.driver)
  if not owner then
    if driver_lease > 0 then
      redis.call('SET', group.driver, client, 'PX', int(driver_lease / 1000))
      owner = client
    else
      owner = 'all'
    end
  end
  if owner == client then
    group.next = look_in(group, wait_of(group, costs_of(entry_of(head).cost)))
  else
    tell(owner, 'w ' .. group.driver)
  end
end
