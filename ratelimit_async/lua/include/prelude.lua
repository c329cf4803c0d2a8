-- What every script over limit keys shares: the clock, the caller, and how groups of entries are read.
--
-- A call carries groups, one per limit key, each with the key's configuration and its entries:
--   ARGV[1] client id   ARGV[2] client lease, us   ARGV[3] driver lease, us (0: this client drives nothing)
--   ARGV[4] prefix of the reply channels   ARGV[5] number of groups, then per group:
--   priorities, max_size, overflow, promote (us after which a waiter is lifted a level, 0: never),
--   paused (until when, us; -1 without end; 0 not), cached (1: processes keep denials of this key), number of limits,
--   (kind, unit, amount, period in us, drain) per limit, number of entries, the entries' fields
--   KEYS per group: driver, clients, records, leases, held, pause, work, taken by this client, one queue per priority,
--   one state per limit but concurrent ones;
--   for scripts that include tasks also: tasks, workers, started, delayed, parked, dead, ended
-- kind: sw, fw, sc, tb or cc (see the algorithms' files), with '+' where a charge counts from the call's end.
-- A group's reply is {next, reply of each entry...}; next: us until this client, as the driver of the key,
-- should look at its queue, or -1. A group that fails replies with the error's text and hurts no other.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local client = ARGV[1]
local client_lease = tonumber(ARGV[2])
local driver_lease = tonumber(ARGV[3])
local channel = ARGV[4]
-- Longest life of what waits, ms, once nobody renews it.
local QUEUE_TTL = 60000
-- The same for durable tasks, and longest life of a dead letter.
local TASK_TTL = 30 * 24 * 3600 * 1000
-- What one script looks through of anything that may be long.
local BATCH = 100

-- For the scripts that know of durable tasks: reads a group's further keys from KEYS[k] on.
local open_tasks

local function int(number)
  return string.format('%.0f', number)
end

local parsed = {}

-- 'requests=3,tokens=900': units that are not named cost what they usually do; '-': all of them.
local function costs_of(text)
  local costs = parsed[text]
  if not costs then
    costs = {}
    for unit, cost in string.gmatch(text, '([%w_]+)=(%d+)') do
      costs[unit] = tonumber(cost)
    end
    parsed[text] = costs
  end
  return costs
end

local function tell(owner, message)
  redis.call('PUBLISH', channel .. owner, message)
end

-- For scripts that only keep, hand out or give back what is there: they go on where Redis' memory is full. Redis looks at
-- that before a write that may take memory, unless the script has written before; this writes nothing.
local function go_on_when_full(group)
  redis.call('ZREM', group.leases, '')
end

local function open_group(a, k)
  local group = {
    priorities = tonumber(ARGV[a]),
    max_size = tonumber(ARGV[a + 1]),
    overflow = ARGV[a + 2],
    promote = tonumber(ARGV[a + 3]),
    paused = tonumber(ARGV[a + 4]),
    cached = ARGV[a + 5] == '1',
    driver = KEYS[k],
    clients = KEYS[k + 1],
    records = KEYS[k + 2],
    leases = KEYS[k + 3],
    held = KEYS[k + 4],
    pause = KEYS[k + 5],
    work = KEYS[k + 6],
    taken = KEYS[k + 7],
    queues = {},
    limits = {},
    usual = { requests = 1 },
    alive = {},
    next = -1,
  }
  -- What a look finds in the usual case is that none of these is there.
  group.signs = { group.leases, group.pause }
  local limits = tonumber(ARGV[a + 6])
  a, k = a + 7, k + 8
  for p = 1, group.priorities do
    group.queues[p] = KEYS[k]
    group.signs[p + 2] = KEYS[k]
    k = k + 1
  end
  for i = 1, limits do
    local kind = ARGV[a]
    local limit = {
      group = group,
      kind = string.sub(kind, 1, 2),
      unit = ARGV[a + 1],
      amount = tonumber(ARGV[a + 2]),
      period = tonumber(ARGV[a + 3]),
      drain = tonumber(ARGV[a + 4]),
      finish = string.sub(kind, 3) == '+',
      scale = 1,
      used = 0,
    }
    if limit.kind == 'cc' then
      group.usual[limit.unit] = 1
    else
      limit.key = KEYS[k]
      k = k + 1
    end
    limit.holds = limit.finish or limit.kind == 'cc'
    group.holds = group.holds or limit.holds
    group.limits[i] = limit
    a = a + 5
  end
  for _, limit in ipairs(group.limits) do
    limit.usual = group.usual[limit.unit] or 0
  end
  if open_tasks then
    k = open_tasks(group, k)
  end
  return group, a, k
end

local function cost_of(limit, costs)
  return costs[limit.unit] or limit.usual
end
