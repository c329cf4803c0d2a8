-- Purpose: what Redis holds of a limit key, whatever its configuration; changes nothing.
-- KEYS:    driver, pause, held, started, delayed, parked, dead, workers, number of ARGV[1] queues, best priority first,
--          then the state of one limit each
-- ARGV:    number of queues, then for each state its kind (sw, fw, sc or tb) and what it drains, parts per us, 0: not known
-- Reply:   {now us, driver or '', us for which it stays paused (-1 without end, 0 not), calls that run,
--          {durable tasks that run, are delayed, have no worker, are dead; workers}, {depth per queue},
--          wait us of who waits longest, wait us that 99 % of those who wait stay below,
--          per state {units charged, -1 unknown; us from which on; of those, the units charged by then; units that the
--          window before charged; how long a window is, us, 0: it does not say}}
-- Cost:    O(queues * log(waiting)^2)

-- @include clock
-- @include window

local levels = tonumber(ARGV[1])

local function since(queue, index)
  local entry = redis.call('LINDEX', queue, index)
  return tonumber(string.match(entry or '', '^%S+ %S+ (%d+)')) or now
end

-- Of lists that are each in the order of time, when the nth oldest of all came: each step passes over the part of one
-- list that cannot hold it.
local function nth_oldest(queues, depths, n)
  local passed = {}
  while true do
    local step = math.max(1, math.min(math.floor(n / #queues), n - 1))
    local oldest, best, width
    for i, queue in ipairs(queues) do
      local start = passed[i] or 0
      local some = math.min(step, depths[i] - start)
      if some > 0 then
        local at = since(queue, start + some - 1)
        if not oldest or at < oldest then
          oldest, best, width = at, i, some
        end
      end
    end
    if n <= 1 or not best then
      return oldest or now
    end
    passed[best], n = (passed[best] or 0) + width, n - width
  end
end

local kinds = {}

-- The first row, or the newest of those that have expired: what it says shows whether the window began anew.
function kinds.sw(key)
  local window = { key = key }
  read_window(window)
  if window.rows == 0 then
    return { 0, 0, 0, 0, 0 }
  end
  local row = math.max(window.expired, 1)
  local first, base = unpacked(ROW, rows_of(key, row, row), 1)
  return { window.total, first, base, 0, 0 }
end

function kinds.fw(key)
  local state = redis.call('GET', key) or ''
  local period, index, used, before = string.match(state, '^(%d+):(%d+):(-?%d+):?(%d*)$')
  if not period then
    return { 0, 0, 0, 0, 0 }
  end
  return { tonumber(used), tonumber(period) * tonumber(index), 0, tonumber(before) or 0, tonumber(period) }
end
kinds.sc = kinds.fw

-- What is in it and what has drained since it was last empty.
function kinds.tb(key, drain)
  local state = redis.call('GET', key)
  if drain == 0 or not state then
    return { drain == 0 and -1 or 0, 0, 0, 0, 0 }
  end
  local stamp, level, empty, scale = string.match(state, '^(%d+) (%d+) (%d+) (%d+)$')
  return { math.floor((level + (stamp - empty) * drain) / scale + 0.5), tonumber(empty), 0, 0, 0 }
end

local queues, depths, all, waiting = {}, {}, {}, 0
for i = 1, levels do
  local depth = redis.call('LLEN', KEYS[8 + i])
  all[i] = depth
  if depth > 0 then
    queues[#queues + 1], depths[#depths + 1] = KEYS[8 + i], depth
    waiting = waiting + depth
  end
end
local oldest, slowest = now, now
if waiting > 0 then
  oldest = nth_oldest(queues, depths, 1)
  slowest = nth_oldest(queues, depths, math.floor(waiting / 100) + 1)
end

local states = {}
for i = 9 + levels, #KEYS do
  local a = 2 * (i - 9 - levels) + 2
  states[#states + 1] = kinds[ARGV[a]](KEYS[i], tonumber(ARGV[a + 1]))
end

local tasks = {}
for i = 4, 7 do
  tasks[i - 3] = redis.call('ZCARD', KEYS[i])
end
tasks[5] = redis.call('HLEN', KEYS[8])
local pause = tonumber(redis.call('GET', KEYS[2]) or 0)
pause = pause < 0 and -1 or math.max(pause - now, 0)
-- Below 1 are sums.
local held = redis.call('ZCARD', KEYS[3])
for _, member in ipairs(redis.call('ZRANGE', KEYS[3], '0', '15')) do
  held = held - (string.sub(member, 1, 1) == '#' and 1 or 0)
end
return {
  now,
  redis.call('GET', KEYS[1]) or '',
  pause,
  held,
  tasks,
  all,
  math.max(now - oldest, 0),
  math.max(now - slowest, 0),
  states,
}
