-- The queue of a key: one list per priority, whole entries in it, the head at the left.
--
-- entry: 'client seq enqueued deadline cost', times in us, deadline 0 for none. id: 'client.seq'.
-- records: id -> 'G stamp priority limit remaining reset entry' (granted, not yet claimed) or 'D reason' (dropped).
-- leases: id -> when its record is taken back. clients: client -> when it counts as gone.

local function entry_of(text)
  local owner, seq, enqueued, deadline, cost = string.match(text, '^(%S+) (%S+) (%d+) (%d+) (%S+)$')
  return {
    text = text,
    client = owner,
    seq = seq,
    id = owner .. '.' .. seq,
    enqueued = tonumber(enqueued),
    deadline = tonumber(deadline),
    cost = cost,
  }
end

local function tell(owner, message)
  redis.call('PUBLISH', channel .. owner, message)
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

-- One that is past its deadline or whose process is gone is never granted, so never charged.
local function is_live(group, entry)
  return (entry.deadline == 0 or entry.deadline > now) and is_alive(group, entry.client)
end

local function depths_of(group)
  if not group.depths then
    group.depths, group.depth = {}, 0
    if redis.call('EXISTS', unpack(group.queues)) > 0 then
      for p, queue in ipairs(group.queues) do
        group.depths[p] = redis.call('LLEN', queue)
        group.depth = group.depth + group.depths[p]
      end
    else
      for p = 1, group.priorities do
        group.depths[p] = 0
      end
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

local function add_depth(group, priority, n)
  depths_of(group)
  group.depths[priority] = group.depths[priority] + n
  group.depth = group.depth + n
end

local function keep(group)
  redis.call('PEXPIRE', group.clients, QUEUE_TTL)
  for p, queue in ipairs(group.queues) do
    if depths_of(group)[p] > 0 then
      redis.call('PEXPIRE', queue, QUEUE_TTL)
    end
  end
end

local function record(group, id, value)
  redis.call('HSET', group.records, id, value)
  redis.call('ZADD', group.leases, int(now + client_lease), id)
  local life = int(QUEUE_TTL + client_lease / 1000)
  redis.call('PEXPIRE', group.records, life)
  redis.call('PEXPIRE', group.leases, life)
end

local function forget(group, ids)
  redis.call('HDEL', group.records, unpack(ids))
  redis.call('ZREM', group.leases, unpack(ids))
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

local function insert(group, priority, entry)
  -- Arrival order is kept: an entry that comes back stands before all that came after it.
  local queue = group.queues[priority]
  local heads = redis.call('LRANGE', queue, 0, -1)
  for _, text in ipairs(heads) do
    if entry_of(text).enqueued > entry.enqueued then
      redis.call('LINSERT', queue, 'BEFORE', text, entry.text)
      add_depth(group, priority, 1)
      return
    end
  end
  redis.call('RPUSH', queue, entry.text)
  add_depth(group, priority, 1)
end

-- Takes back what was granted and not claimed within its lease; the grant goes to the next, its owner, if alive, to its place.
local function reap(group)
  local lapsed = redis.call('ZRANGEBYSCORE', group.leases, '-inf', int(now), 'LIMIT', 0, 100)
  if #lapsed == 0 then
    return
  end
  local values = redis.call('HMGET', group.records, unpack(lapsed))
  for _, value in ipairs(values) do
    local grant = value and grant_of(value)
    if grant then
      refund(group, grant.stamp, costs_of(grant.entry.cost))
      if is_live(group, grant.entry) then
        insert(group, math.min(grant.priority, group.priorities), grant.entry)
      end
    end
  end
  forget(group, lapsed)
end

-- Bounded: what is left over is found by the next script that looks.
local function tidy(group)
  local depths = depths_of(group)
  for p, queue in ipairs(group.queues) do
    for _ = 1, math.min(depths[p], 16) do
      local head = redis.call('LINDEX', queue, 0)
      if not head or is_live(group, entry_of(head)) then
        break
      end
      redis.call('LPOP', queue)
      add_depth(group, p, -1)
    end
  end
end

local function find(group, id)
  for p, queue in ipairs(group.queues) do
    for position, text in ipairs(redis.call('LRANGE', queue, 0, -1)) do
      local entry = entry_of(text)
      if entry.id == id then
        return entry, p, position
      end
    end
  end
end

local function head_of(group)
  local best = best_of(group)
  return best and redis.call('LINDEX', group.queues[best], 0)
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
    if group.head or redis.call('EXISTS', group.leases) > 0 then
      reap(group)
      tidy(group)
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

local function wait_of(group, text)
  return (wait_for(group, costs_of(entry_of(text).cost), 0))
end

-- Where the head moved, or `freed` may let it pass, somebody must look at the queue: its driver; this client, if it may
-- drive and nobody does; or whoever hears.
local function nudge(group, freed)
  local head = head_of(group)
  if not head or (head == group.head and not freed) then
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
    group.next = wait_of(group, head)
  else
    tell(owner, 'w ' .. group.driver)
  end
end
