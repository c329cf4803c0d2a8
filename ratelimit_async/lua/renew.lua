-- Purpose: renews a client's leases on many keys at once where nothing else is to be said of them: as one that waits, as
--          the driver, or as a worker of durable tasks of which it runs none.
-- KEYS:    per limit key, wait: its driver, clients and records; drive: its driver; work: its driver and workers
-- ARGV:    client id, client lease, us, driver lease, us; 'wait', 'drive' or 'work'; work: room and names, as in task.lua
-- Reply:   per limit key 1 where its lease was renewed; 0 where more is to be done: the lease has lapsed, nobody drives the
--          key, something was granted or dropped that nobody has fetched, or a worker without room has room again
-- Cost:    O(keys)
-- @include clock

local ops = {}
local client, op, room = ARGV[1], ARGV[4], ARGV[5]
local ends, driver_ms = int(now + tonumber(ARGV[2])), int(tonumber(ARGV[3]) / 1000)

function ops.drive(driver)
  return call('GET', driver) == client and call('PEXPIRE', driver, driver_ms) == 1
end

function ops.wait(driver, clients, records)
  local known = call('ZSCORE', clients, client)
  if known and tonumber(known) > now and call('EXISTS', driver) == 1 and call('EXISTS', records) == 0 then
    call('ZADD', clients, ends, client)
    return true
  end
end

function ops.work(driver, workers)
  local known, free, names = match(call('HGET', workers, client) or '', '^(%d+) (%d+) (.*)$')
  local well = known and tonumber(known) > now and names == ARGV[6] and (free ~= '0' or room == '0')
  if well and call('EXISTS', driver) == 1 then
    call('HSET', workers, client, ends .. ' ' .. room .. ' ' .. names)
    return true
  end
end

local renew, each, replies = ops[op], ({ drive = 1, wait = 3, work = 2 })[op], {}
if op ~= 'drive' then
  -- Redis looks whether its memory is full before the first write only, and this takes none.
  call(op == 'wait' and 'ZREM' or 'HDEL', KEYS[2], '')
end
for k = 1, #KEYS, each do
  replies[#replies + 1] = renew(KEYS[k], KEYS[k + 1], KEYS[k + 2]) and 1 or 0
end
return replies
