-- What every script over limit keys shares: the clock, the caller, and how groups of entries are read.
--
-- A call carries groups, one per limit key, each with the key's configuration and its entries:
--   ARGV[1] client id   ARGV[2] client lease, us   ARGV[3] driver lease, us (0: this client drives nothing)
--   ARGV[4] prefix of the reply channels   ARGV[5] us by which this client, as a driver, looks at a grant ahead of its time
--   ARGV[6] number of groups, then per group:
--   header, paused (until when, us; -1 without end; 0 not), number of entries, the entries' fields
--   header, words in one: priorities, max_size, overflow, promote (us after which a waiter is lifted a level, 0: never),
--   cached (1: processes keep denials of this key), then kind, unit, amount, period in us and drain per limit
--   KEYS per group: driver, clients, records, held, work, taken by this client, leases, pause, one queue per priority,
--   one state per limit but concurrent ones;
--   for scripts that include tasks also: tasks, workers, started, delayed, parked, dead, ended
-- kind: sw, fw, sc, tb or cc (see the algorithms' files), with '+' where a charge counts from the call's end.
-- A group's reply is {next, reply of each entry...}; next: us until this client, as the driver of the key,
-- should look at its queue, or -1. A group that fails replies with the error's text and hurts no other.

-- @include basics

-- Longest life of what waits, ms, once nobody renews it; leases are renewed each third of themselves.
local QUEUE_TTL = 60000 + math.ceil(client_lease / 1000)
-- The same for durable tasks, and longest life of a dead letter.
local TASK_TTL = 30 * 24 * 3600 * 1000

-- For the scripts that know of durable tasks: reads a group's further keys from KEYS[k] on.
local open_tasks

-- For the scripts that know of the queue: writes what waiting requests cost, where a group has `extra` of it.
local save_work

local function tell(owner, message)
  redis.call('PUBLISH', channel .. owner, message)
end

-- For scripts that only keep, hand out or give back what is there: they go on where Redis' memory is full. Redis looks at
-- that before a write that may take memory, unless the script has written before; this writes nothing.
local function go_on_when_full(group)
  if not group.goes_on then
    group.goes_on = true
    redis.call('ZREM', group.leases, '')
  end
end

local function open_group(a, k)
  local header = header_of(ARGV[a])
  local levels = header.priorities
  local group = {
    priorities = levels,
    max_size = header.max_size,
    overflow = header.overflow,
    promote = header.promote,
    cached = header.cached,
    usual = header.usual,
    holds = header.holds,
    paused = tonumber(ARGV[a + 1]),
    driver = KEYS[k],
    clients = KEYS[k + 1],
    records = KEYS[k + 2],
    held = KEYS[k + 3],
    work = KEYS[k + 4],
    taken = KEYS[k + 5],
    leases = KEYS[k + 6],
    pause = KEYS[k + 7],
    queues = { unpack(KEYS, k + 8, k + 7 + levels) },
    limits = {},
    alive = {},
    next = -1,
    first = k + 6,
    last = k + 7 + levels,
    quiet = nil,
    depths = nil,
    depth = nil,
    opened = nil,
    looked = nil,
    watched = nil,
  }
  k = k + 8 + levels
  for i, given in ipairs(header.limits) do
    local limit = new_limit(
      group, given.kind, given.unit, given.amount, given.period, given.drain, given.finish, given.holds, given.usual
    )
    if given.kind ~= 'cc' then
      limit.key = KEYS[k]
      k = k + 1
    end
    group.limits[i] = limit
  end
  if open_tasks then
    k = open_tasks(group, k)
  end
  return group, a + 2, k
end

-- Never shorter than it was: durable tasks may be in there.
local function live(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, int(ms))
  end
end

-- Whoever asks whether somebody may wait, be granted and not yet run, or have paused the key asks for one name: `clients`
-- is there as long as any lease, pause or queue may be. Whatever writes one says for how many ms; once all are gone,
-- whoever looks takes it away.
local function be_seen(group, ms)
  if (group.seen or 0) < ms then
    group.seen = ms
    redis.call('ZADD', group.clients, '+inf', '*')
    -- What is written after it in the same call expires that much later.
    live(group.clients, ms + 1000)
  end
end

local function is_quiet(group)
  if group.quiet == nil then
    group.quiet = redis.call('EXISTS', group.clients) == 0
    if not group.quiet and redis.call('EXISTS', unpack(KEYS, group.first, group.last)) == 0 then
      redis.call('DEL', group.clients)
      group.quiet, group.seen, group.alive = true, nil, {}
    end
  end
  return group.quiet
end

-- Until when, us, the key is paused, for itself or by name; -1: without end; 0: it is not.
local function paused_until(group)
  local pause = group.paused > now and group.paused or group.paused < 0 and -1 or 0
  if pause >= 0 and not is_quiet(group) then
    group.own_pause = group.own_pause or tonumber(redis.call('GET', group.pause) or 0)
    local own = group.own_pause
    pause = own < 0 and -1 or math.max(pause, own > now and own or 0)
  end
  return pause
end
