-- Now, us by Redis' clock, and how numbers are handed to Redis.

-- What every check needs is looked up once: each of these is two tables away.
local call, floor, ceil, format, match = redis.call, math.floor, math.ceil, string.format, string.match
local MOST_EXACT = 2 ^ 53

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- A number as a command's argument. Redis writes those that it gets as numbers with all digits of a fraction, which takes
-- longer than most commands; so does '%.0f', which is for what '%d' cannot hold.
local function int(number)
  if number < MOST_EXACT and number > -MOST_EXACT then
    return format('%d', floor(number + 0.5))
  end
  return format('%.0f', number)
end
