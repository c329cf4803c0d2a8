-- What this client was charged for lately, to be told again where the reply was lost.
--
-- taken: what a client was charged for lately, to be told again where the reply was lost; a line 'turn stamp' each,
-- turn: the id's number, with '/n' where it is requested for the nth time more.

-- @include noted

local function note_taken(group, turn, stamp)
  group.noted = group.noted or {}
  table.insert(group.noted, turn .. ' ' .. stamp .. '\n')
end

local function save_taken(group)
  if group.noted then
    keep_taken(group.taken, group.noted)
    group.noted = nil
  end
end

-- When a turn was charged whose reply was lost, us.
local function find_taken(group, turn)
  group.was_taken = group.was_taken or '\n' .. (redis.call('GET', group.taken) or '')
  local _, last = string.find(group.was_taken, '\n' .. turn .. ' ', 1, true)
  return last and string.match(group.was_taken, '^%d+', last + 1)
end

-- Forgets one whose charge is given back, for good: it may be withdrawn twice.
local function forget_taken(group, turn)
  local first, last = string.find(group.was_taken, '\n' .. turn .. ' %d+')
  group.was_taken = string.sub(group.was_taken, 1, first) .. string.sub(group.was_taken, last + 2)
  redis.call('SET', group.taken, string.sub(group.was_taken, 2), 'KEEPTTL')
end
