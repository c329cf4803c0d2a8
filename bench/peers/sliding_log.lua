-- A sliding window as it is usually written by hand: one sorted set of hits.
-- KEYS[1]: the log; ARGV: now in us, an id of this hit, then amount and period in us of each limit, the longest last.
-- Reply: 1 allowed, 0 denied.
local key, now = KEYS[1], tonumber(ARGV[1])
local longest = tonumber(ARGV[#ARGV])
redis.call('ZREMRANGEBYSCORE', key, '-inf', now - longest)
if #ARGV == 4 then
  if redis.call('ZCARD', key) >= tonumber(ARGV[3]) then return 0 end
else
  for i = 3, #ARGV, 2 do
    if redis.call('ZCOUNT', key, '(' .. string.format('%.0f', now - ARGV[i + 1]), '+inf') >= tonumber(ARGV[i]) then return 0 end
  end
end
redis.call('ZADD', key, now, ARGV[2])
redis.call('PEXPIRE', key, math.ceil(longest / 1000))
return 1
