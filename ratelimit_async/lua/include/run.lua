-- The loop over groups and their entries.

-- Gives what serves the group that begins at ARGV[a] and KEYS[k]: its reply, and where the next begins.
-- arity: fields per entry. serve(group, first) gets where an entry begins in ARGV; finish(group) ends a group.
local function server(arity, serve, finish)
  local function serve_all(group, first, entries)
    local reply = {}
    for e = 1, entries do
      reply[e + 1] = serve(group, first + (e - 1) * arity)
    end
    save(group)
    if finish then
      finish(group)
    end
    if group.extra then
      save_work(group)
    end
    -- Was it the last? Then checks need not look for others any more.
    if group.taken_out and (group.depth or 0) == 0 then
      group.quiet = nil
      is_quiet(group)
    end
    if group.freed and group.cached then
      tell('all', 'x ' .. group.driver)
    end
    reply[1] = math.ceil(group.next)
    return reply
  end

  return function(a, k)
    local group
    group, a, k = open_group(a, k)
    local entries = tonumber(ARGV[a])
    local ok, result = pcall(serve_all, group, a + 1, entries)
    if not ok and type(result) == 'table' then
      result = result.err
    end
    return result, a + 1 + entries * arity, k
  end
end

-- Who is told when to look counts from the end of the call, and many grants take their time.
local function from_end(replies)
  local passed
  for _, reply in ipairs(replies) do
    if type(reply) == 'table' and reply[1] > 0 then
      if not passed then
        local ended = redis.call('TIME')
        passed = ended[1] * 1000000 + ended[2] - now
      end
      reply[1] = math.max(reply[1] - passed, 0)
    end
  end
  return replies
end

local function run(arity, serve, finish)
  local serve_group, replies, a, k = server(arity, serve, finish), {}, 7, 1
  for i = 1, tonumber(ARGV[6]) do
    replies[i], a, k = serve_group(a, k)
  end
  return from_end(replies)
end
