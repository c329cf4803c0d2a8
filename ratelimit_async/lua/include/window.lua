-- What a sliding window is in Redis. A sorted set: member = end of a bucket, us; score = all that was ever charged up to
-- its end. Charges of one bucket share a member, so a window holds at most 800 (and the newest expired one, from which
-- counting starts).

-- So that a window takes less than 0.1 MB.
local BUCKETS = 800

local function bucket_of(period, at)
  local width = ceil(period / BUCKETS)
  return (floor(at / width) + 1) * width
end

-- ms for which a window is kept whose newest bucket this is.
local function life_of(period, bucket)
  return format('%d', ceil((bucket - now + period) / 1000) + 1000)
end

local filling = {}

-- The bucket that is filled now, also as it is written, and the life of a window in which it is the newest: the same for
-- all windows of a period.
local function filled_now(period)
  local one = filling[period]
  if not one then
    local bucket = bucket_of(period, now)
    one = { bucket = bucket, text = format('%d', bucket), life = life_of(period, bucket) }
    filling[period] = one
  end
  return one
end

-- A clock that steps back must not write before the newest: the scores would no longer rise with time.
local function current_bucket(period, newest)
  local bucket = filled_now(period).bucket
  return bucket < newest and newest or bucket
end

-- Of those that have expired, the first two among them, drops all but the newest; gives its score. Mostly these are all:
-- however many there are, it looks at few.
local function drop_expired(key, period, base)
  local last, alive = 1, 2
  local function is_expired(rank)
    local one = call('ZRANGE', key, rank, rank, 'WITHSCORES')
    if one[1] and tonumber(one[1]) + period <= now then
      last, base = rank, one[2]
      return true
    end
    alive = rank
  end
  while is_expired(alive) do
    alive = alive * 2
  end
  while alive - last > 1 do
    is_expired(floor((last + alive) / 2))
  end
  call('ZREMRANGEBYRANK', key, '0', last - 1)
  return base
end

-- What was charged before the window, what was ever charged, and the newest bucket; 0, 0, 0 where nothing counts.
local function open_window(key, period)
  local oldest = call('ZRANGE', key, '0', '1', 'WITHSCORES')
  if not oldest[1] then
    return 0, 0, 0
  end
  local newest, base = oldest, 0
  if oldest[3] then
    newest = call('ZRANGE', key, '-1', '-1', 'WITHSCORES')
  end
  local last = tonumber(newest[1])
  if last + period <= now then
    call('DEL', key)
    return 0, 0, 0
  elseif tonumber(oldest[1]) + period <= now then
    -- Of those that have expired the newest stays, to count from.
    base = oldest[2]
    if tonumber(oldest[3]) + period <= now then
      base = drop_expired(key, period, oldest[4])
    end
  end
  return tonumber(base), tonumber(newest[2]), last
end

-- us until all has expired that was charged before the window and so many units after.
local function window_frees_in(key, period, newest, units)
  local freed = call('ZRANGEBYSCORE', key, int(units), '+inf', 'LIMIT', '0', '1')
  return (tonumber(freed[1]) or current_bucket(period, newest)) + period - now
end

-- Writes all that was ever charged, in the bucket that is filled now; gives that.
local function save_window(key, period, newest, total)
  local one = filled_now(period)
  if one.bucket > newest then
    call('ZADD', key, int(total), one.text)
    call('PEXPIRE', key, one.life)
    return one.bucket
  end
  call('ZADD', key, int(total), int(newest))
  return newest
end
