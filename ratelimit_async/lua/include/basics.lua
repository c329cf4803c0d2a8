-- What every script that counts shares: the clock, the caller, costs, and the configuration of a key.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local client = ARGV[1]
local client_lease = tonumber(ARGV[2])
local driver_lease = tonumber(ARGV[3])
local channel = ARGV[4]
-- What one script looks through of anything that may be long.
local BATCH = 100

-- Most of a script's start is the making of its functions: those of a part are made when something first needs them.
local parts, made = {}, {}

local function part_of(name)
  local part = made[name]
  if not part then
    part = parts[name]()
    made[name] = part
  end
  return part
end

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

local headers = {}

-- Many groups of a call are configured alike.
local function header_of(text)
  local header = headers[text]
  if header then
    return header
  end
  local priorities, max_size, overflow, promote, cached, rest =
    string.match(text, '^(%d+) (%d+) (%S+) (%d+) (%d) ?(.*)$')
  header = {
    priorities = tonumber(priorities),
    max_size = tonumber(max_size),
    overflow = overflow,
    promote = tonumber(promote),
    cached = cached == '1',
    usual = { requests = 1 },
    limits = {},
  }
  for kind, unit, amount, period, drain in string.gmatch(rest, '(%S+) (%S+) (%d+) (%d+) (%d+)') do
    local limit = {
      kind = string.sub(kind, 1, 2),
      unit = unit,
      amount = tonumber(amount),
      period = tonumber(period),
      drain = tonumber(drain),
      finish = #kind == 3,
    }
    limit.holds = limit.finish or limit.kind == 'cc'
    header.holds = header.holds or limit.holds
    if limit.kind == 'cc' then
      header.usual[unit] = 1
    end
    header.limits[#header.limits + 1] = limit
  end
  for _, limit in ipairs(header.limits) do
    limit.usual = header.usual[limit.unit] or 0
  end
  headers[text] = header
  return header
end

local function cost_of(limit, costs)
  return costs[limit.unit] or limit.usual
end

-- Fields that most scripts set are named here, as for groups: a table that grows is copied.
local function new_limit(group, given)
  return {
    group = group,
    kind = given.kind,
    unit = given.unit,
    amount = given.amount,
    period = given.period,
    drain = given.drain,
    finish = given.finish,
    holds = given.holds,
    usual = given.usual,
    scale = 1,
    used = 0,
    key = nil,
    does = nil,
    dirty = nil,
    base = nil,
    total = nil,
    newest = nil,
  }
end

-- Hits and checks mostly cost the usual, and look alike.
local function read(entry)
  if entry == 'hit -' then
    return 'hit', '-'
  end
  return string.match(entry, '^(%l+) (%S+) ?(.*)$')
end
