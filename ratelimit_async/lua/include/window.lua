-- What a sliding window is in Redis. A string of whole numbers, seven bytes each. Of each bucket in which something was
-- charged it has a row, oldest first: the bucket's end, us, and all that was ever charged up to it. Behind the newest
-- bucket's row is the tail: the end of the oldest bucket that counts, all that was charged before it, until when Redis
-- keeps the window, us, and, of two bytes each, how many rows have expired, and how many there are. So most checks need
-- one read, and one write, however much a window holds.

-- So that capacity comes back in time, and a window stays small.
local BUCKETS = 800
local NUMBER, ROW, ROW_AND_TAIL = '>I7', '>I7I7', '>I7I7I7I7I7I2I2'
-- A window that has counted more begins anew: from 2^53 on a number loses units.
local MOST_TOTAL = MOST_EXACT / 2

-- It is part of Redis, but not of fakeredis.
local struct = struct
if not struct then
  struct = {}

  function struct.pack(form, ...)
    local numbers, bytes = { ... }, ''
    for size in string.gmatch(form, '%d') do
      local number, text = table.remove(numbers, 1), ''
      for _ = 1, size do
        text = string.char(number % 256) .. text
        number = floor(number / 256)
      end
      bytes = bytes .. text
    end
    return bytes
  end

  function struct.unpack(form, text, at)
    local numbers = {}
    for size in string.gmatch(form, '%d') do
      local number = 0
      for place = at, at + size - 1 do
        number = number * 256 + string.byte(text, place)
      end
      at = at + size
      numbers[#numbers + 1] = number
    end
    return unpack(numbers)
  end
end
local packed, unpacked = struct.pack, struct.unpack

local function bucket_of(period, at)
  local width = ceil(period / BUCKETS)
  return (floor(at / width) + 1) * width
end

-- By period: the bucket that is filled now.
local filling = {}

-- A clock that steps back must not write before the newest: rows would no longer rise with time.
local function current_bucket(period, newest)
  local bucket = filling[period]
  if not bucket then
    bucket = bucket_of(period, now)
    filling[period] = bucket
  end
  return bucket < newest and newest or bucket
end

local function rows_of(key, from, to)
  if to < from then
    return ''
  end
  return call('GETRANGE', key, format('%d', 14 * from - 14), format('%d', 14 * to - 1))
end

-- Of a row of some that were read, the first of them 0: its end (column 1) or total (column 2).
local function number_at(text, row, column)
  return (unpacked(NUMBER, text, 14 * row + 7 * column - 6))
end

-- The first row that counts and whose end (column 1) or total (column 2) is at least so much: its number, and the total
-- of the row before; its end and total, but nothing behind all rows.
local function find_row(limit, column, least)
  local from, last = limit.expired + 1, limit.rows
  local to = from + 3 < last and from + 3 or last
  -- Mostly it is one of the first.
  local text = rows_of(limit.key, from, to)
  if to < last and number_at(text, 3, column) < least then
    to = last
    text = rows_of(limit.key, from, to)
  end
  local low, high = from, to + 1
  while low < high do
    local middle = floor((low + high) / 2)
    if number_at(text, middle - from, column) < least then
      low = middle + 1
    else
      high = middle
    end
  end
  local before = low > from and number_at(text, low - from - 1, 2) or limit.base
  if low > last then
    return low, before
  end
  return low, before, unpacked(ROW, text, 14 * (low - from) + 1)
end

-- All that is known of a limit's window: the tail's numbers, the `newest` bucket, and what was ever charged, as it is
-- `written` and in `total`. All are 0 where nothing counts.
local function clear_window(limit)
  limit.newest, limit.written, limit.total = 0, 0, 0
  limit.oldest, limit.base, limit.kept, limit.expired, limit.rows = 0, 0, 0, 0, 0
end

local function read_window(limit)
  local text = call('GETRANGE', limit.key, '-39', '-1')
  if #text == 39 then
    limit.newest, limit.written, limit.oldest, limit.base, limit.kept, limit.expired, limit.rows =
      unpacked(ROW_AND_TAIL, text, 1)
    limit.total = limit.written
  else
    clear_window(limit)
  end
  if text ~= '' and (#text < 39 or limit.rows > 2 * BUCKETS) then
    error('WRONGTYPE ' .. limit.key .. ' holds something else than a sliding window', 0)
  end
end

-- The same, of what still counts.
local function open_window(limit)
  read_window(limit)
  local expired = now - limit.period
  if limit.newest <= expired then
    clear_window(limit)
  elseif limit.oldest <= expired then
    local row, before, bucket = find_row(limit, 1, expired + 1)
    limit.expired, limit.base, limit.oldest = row - 1, before, bucket
  end
  limit.used = limit.total - limit.base
end

-- us until all has expired that was charged before the window and so many units after.
local function window_frees_in(limit, units)
  local _, _, bucket = find_row(limit, 2, limit.base + units)
  return (bucket or current_bucket(limit.period, limit.newest)) + limit.period - now
end

-- Writes the newest bucket's row and the tail; with `rows`, these before them.
local function write_window(limit, rows)
  local newest, life = limit.newest, nil
  -- Kept for longer than it counts, so that few charges have to prolong it.
  if rows or limit.kept < newest + limit.period then
    limit.kept = newest + floor(limit.period * 17 / 16)
    life = format('%d', ceil((limit.kept - now) / 1000) + 1000)
  end
  local text =
    packed(ROW_AND_TAIL, newest, limit.written, limit.oldest, limit.base, limit.kept, limit.expired, limit.rows)
  if rows then
    call('SET', limit.key, rows .. text, 'PX', life)
  else
    call('SETRANGE', limit.key, format('%d', 14 * limit.rows - 14), text)
    if life then
      call('PEXPIRE', limit.key, life)
    end
  end
end

-- Writes all that was ever charged, in the bucket that is filled now.
local function save_window(limit)
  local bucket, rows = current_bucket(limit.period, limit.newest), nil
  if bucket > limit.newest then
    local expired = limit.expired
    if limit.rows == 0 then
      limit.oldest, rows = bucket, ''
    elseif expired > 16 and expired > limit.rows / 4 then
      -- Of those that have expired the newest stays, to count from.
      rows = rows_of(limit.key, expired, limit.rows)
      limit.rows, limit.expired = limit.rows - expired + 1, 1
    end
    limit.newest, limit.rows = bucket, limit.rows + 1
  end
  limit.written = limit.total
  write_window(limit, rows)
end
