-- Purpose: tells which of a client's requests stand in a queue, a page at a time, from its end: so what is granted
--          meanwhile, or joins, hides none of them.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is priority (0 first), and how many at the end were read before
-- Reply:   {entries read; fewer than asked for: there are no more, numbers...}
-- Cost:    O(1,000)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

return run(2, function(group, a)
  local queue, read = group.queues[tonumber(ARGV[a]) + 1], tonumber(ARGV[a + 1])
  local texts = redis.call('LRANGE', queue, -read - 1000, -read - 1)
  local own, reply = client .. ' ', { #texts }
  for _, text in ipairs(texts) do
    if string.sub(text, 1, #own) == own then
      reply[#reply + 1] = string.match(text, '^(%S+)', #own + 1)
    end
  end
  return reply
end)
