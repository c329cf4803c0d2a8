-- What every script over limit keys shares: the clock, the caller, and the loop over groups of entries.
--
-- A call carries groups, one per limit key, each with the key's configuration and its entries:
--   ARGV[1] client id   ARGV[2] client lease, us   ARGV[3] driver lease, us (0: this client drives nothing)
--   ARGV[4] prefix of the reply channels   ARGV[5] number of groups, then per group:
--   priorities, max_size, overflow, paused (0 or 1), number of limits,
--   (algorithm, unit, amount, period in us) per limit, number of entries, the entries' fields
--   KEYS per group: driver, clients, records, leases, one queue per priority, one state per limit
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

local function int(number)
  return string.format('%.0f', number)
end

local parsed = {}

-- '3' is three requests; 'requests=1,tokens=900' is spelt out; '-' is nothing.
local function costs_of(text)
  local costs = parsed[text]
  if not costs then
    costs = {}
    if tonumber(text) then
      costs.requests = tonumber(text)
    else
      for unit, cost in string.gmatch(text, '([%w_]+)=(%d+)') do
        costs[unit] = tonumber(cost)
      end
    end
    parsed[text] = costs
  end
  return costs
end

local function open_group(a, k)
  local group = {
    priorities = tonumber(ARGV[a]),
    max_size = tonumber(ARGV[a + 1]),
    overflow = ARGV[a + 2],
    paused = ARGV[a + 3] == '1',
    driver = KEYS[k],
    clients = KEYS[k + 1],
    records = KEYS[k + 2],
    leases = KEYS[k + 3],
    queues = {},
    limits = {},
    alive = {},
    next = -1,
  }
  local limits = tonumber(ARGV[a + 4])
  a, k = a + 5, k + 4
  for p = 1, group.priorities do
    group.queues[p] = KEYS[k]
    k = k + 1
  end
  for i = 1, limits do
    group.limits[i] = {
      key = KEYS[k],
      algorithm = ARGV[a],
      unit = ARGV[a + 1],
      amount = tonumber(ARGV[a + 2]),
      period = tonumber(ARGV[a + 3]),
    }
    a, k = a + 4, k + 1
  end
  return group, a, k
end

-- arity: fields per entry. serve(group, entry, n) gets where each entry begins in ARGV; finish(group) ends a group.
local function run(arity, serve, finish)
  local replies, a, k = {}, 6, 1
  for i = 1, tonumber(ARGV[5]) do
    local group
    group, a, k = open_group(a, k)
    local entries = tonumber(ARGV[a])
    local first = a + 1
    a = first + entries * arity
    local ok, result = pcall(function()
      local reply = {}
      for e = 1, entries do
        reply[e + 1] = serve(group, first + (e - 1) * arity)
      end
      if finish then
        finish(group)
      end
      reply[1] = group.next
      return reply
    end)
    if not ok and type(result) == 'table' then
      result = result.err
    end
    replies[i] = result
  end
  return replies
end
