-- What every script that counts shares: the clock, the caller, costs, and the configuration of a key.

-- @include clock
-- @include parts
-- @include costs

local client = ARGV[1]
local client_lease = tonumber(ARGV[2])
local driver_lease = tonumber(ARGV[3])
local channel = ARGV[4]
local lead = tonumber(ARGV[5])
-- What one script looks through of anything that may be long.
local BATCH = 100

-- Fields that most scripts set are named here, as for groups: a table that grows is copied.
local function new_limit(group, kind, unit, amount, period, drain, finish, holds, usual)
  return {
    group = group,
    kind = kind,
    unit = unit,
    amount = amount,
    period = period,
    drain = drain,
    finish = finish,
    holds = holds,
    usual = usual,
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

local headers = {}

local LIMIT, LEVELS = '^ (%l%l)(%+?) (%S+) (%d+) (%d+) (%d+)()', '^(%d+) (%d+) (%S+) (%d+) (%d)()'

-- Many groups of a call are configured alike.
local function header_of(text)
  local header = headers[text]
  if header then
    return header
  end
  local priorities, max_size, overflow, promote, cached, at = string.match(text, LEVELS)
  local usual, limits, holds = { requests = 1 }, {}, false
  while at <= #text do
    local kind, finish, unit, amount, period, drain, past = string.match(text, LIMIT, at)
    local held = finish == '+' or kind == 'cc'
    if kind == 'cc' then
      usual[unit] = 1
    end
    limits[#limits + 1] =
      new_limit(nil, kind, unit, tonumber(amount), tonumber(period), tonumber(drain), finish == '+', held, 0)
    at, holds = past, holds or held
  end
  for _, limit in ipairs(limits) do
    limit.usual = usual[limit.unit] or 0
  end
  header = {
    priorities = tonumber(priorities),
    max_size = tonumber(max_size),
    overflow = overflow,
    promote = tonumber(promote),
    cached = cached == '1',
    usual = usual,
    limits = limits,
    holds = holds,
  }
  headers[text] = header
  return header
end

local function cost_of(limit, costs)
  return costs[limit.unit] or limit.usual
end
