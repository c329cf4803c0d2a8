-- Purpose: renews a client's leases on many keys at once where nothing else is to be said of them: on each it waits on or,
--          with 'drive', on each it drives.
-- KEYS:    wait: per limit key its driver, clients and records; drive: per limit key its driver
-- ARGV:    'wait' or 'drive', client id, lease (wait: us, drive: ms)
-- Reply:   per limit key 1 where its lease was renewed; 0 where it was not: it has lapsed, or, to who waits, nobody drives
--          the key or something was granted or dropped that nobody has fetched
-- Cost:    O(keys)
-- @include clock

local client, lease = ARGV[2], tonumber(ARGV[3])
local replies = {}

if ARGV[1] == 'drive' then
  for n, driver in ipairs(KEYS) do
    replies[n] = call('GET', driver) == client and call('PEXPIRE', driver, ARGV[3]) or 0
  end
  return replies
end

local drivers, records = {}, {}
for n = 1, #KEYS / 3 do
  drivers[n], records[n] = KEYS[3 * n - 2], KEYS[3 * n]
end
-- Mostly all is well with all of them: two commands tell.
local driven = call('EXISTS', unpack(drivers)) == #drivers
local fetched = call('EXISTS', unpack(records)) == 0
local ends = int(now + lease)
-- Redis looks whether its memory is full before the first write only, and this takes none.
call('ZREM', KEYS[2], '')
for n, driver in ipairs(drivers) do
  local clients = KEYS[3 * n - 1]
  local until_when = call('ZSCORE', clients, client)
  local well = until_when and tonumber(until_when) > now
    and (driven or call('EXISTS', driver) == 1)
    and (fetched or call('EXISTS', records[n]) == 0)
  if well then
    call('ZADD', clients, ends, client)
  end
  replies[n] = well and 1 or 0
end
return replies
