-- Purpose: checks limits; charges all or none; a request that must wait joins the queue in the same step.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is two: 'op costs' or 'op costs turn priority time enqueued fast', and again
--          op: hit, check, request, submit (as request, with an estimate), shadow (as hit, for a call that will end),
--          return (one that Redis forgot)
--          turn: see include/taken.lua; priority: 0 first
--          time: us to wait at most, -1 for no bound, 0 for not at all; for return the deadline, us, 0 for none
--          enqueued: when it first joined, us, 0: now; fast: 1 where one that cannot be served in time may not wait;
--          again: 1 where an earlier sending may have arrived
-- Reply:   hit, check, shadow: {verdict, limit's index, remaining, reset us, stamp or, where denied, retry us (-1 unknown)}
--          request: {'A', limit's index, remaining, reset us, stamp} admitted; {'G', record} granted
--          earlier; {'Q', entry, position, estimate us, 1 where the client's lease may have lapsed} waits; {'T', estimate us}
--          may not wait; {'F'} the queue is full
-- Cost:    O(log 800) per limit and entry; O(log depth) where `enqueued` is given; O(depth) where `again` is 1 and it is
--          not, or where waiters are lifted; O(what was taken lately) where `again` is 1 or op is return
-- @include clock
-- @include usual
-- @include noted

local header, levels, amount, period

-- Mostly requests are of the usual cost, for a key with one sliding window of requests that has room for them and that
-- nobody waits for. They are admitted by this and window.lua alone: making what others need takes Redis longer than
-- this. Gives a group's reply, but nothing, and charges nothing, where an entry is not usual.
local function admit_usual(a, k, entries)
  -- Many groups of a call are configured alike.
  if ARGV[a] ~= header then
    header = ARGV[a]
    levels, amount, period = match(header, '^(%d+) %d+ %S+ %d+ %d sw requests (%d+) (%d+) 0$')
    levels, amount, period = tonumber(levels), tonumber(amount), tonumber(period)
  end
  if not period or ARGV[a + 1] ~= '0' or call('EXISTS', KEYS[k + 1]) == 1 then
    return
  end
  local lines, stamp = {}, ' ' .. int(now) .. '\n'
  for n = 1, entries do
    local op, turn = match(ARGV[a + 1 + 2 * n], '^(%l+) %- (%S+) %d+ %-?%d+ %d+ %d$')
    if op ~= 'request' and op ~= 'submit' or ARGV[a + 2 + 2 * n] ~= '0' then
      return
    end
    lines[n] = turn .. stamp
  end
  window.key, window.period = KEYS[k + 8 + levels], period
  open_window(window)
  local remaining = amount - window.used
  if entries > remaining or window.total > MOST_TOTAL then
    return
  end
  local reset = current_bucket(period, window.newest) + period - now
  local reply = { -1 }
  for n = 1, entries do
    reply[n + 1] = { 'A', 1, remaining - n, reset, now }
  end
  window.total = window.total + entries
  save_window(window)
  keep_taken(KEYS[k + 5], lines)
  return reply
end

-- What any other group needs is made when the first comes.
local function make_others()
  -- @include prelude
  -- @include limits
  -- @include taken

  -- Nearly all keys are quiet: those who wait are asked about only where there may be some.
  function parts.queue()
    local queue = {}
    -- @include queue
    -- @include room

    local function join(group, priority, entry, enqueued)
      -- What else the client has waiting may be gone; once this renews the lease, nothing else tells.
      local lapsed = is_alive(group, client) and 0 or 1
      if not group.joined then
        redis.call('ZADD', group.clients, int(now + client_lease), client)
        group.joined, group.alive[client] = true, true
      end
      if enqueued < now then
        insert(group, priority, entry)
      else
        append(group, priority, entry)
      end
      return lapsed
    end

    -- What those cost that wait, by unit; nil where nobody does.
    function queue.ahead(group)
      look(group)
      return costs_ahead(group, group.priorities)
    end

    -- What an earlier sending of a request, or what it was before Redis forgot it, left here.
    function queue.known(group, id, enqueued)
      look(group)
      local value = redis.call('HGET', group.records, id)
      if value then
        return { 'G', value }
      end
      local entry, _, position = find_of(group, id, enqueued)
      if entry then
        return { 'Q', entry.text, position, 0, 1 }
      end
    end

    -- How many go before one more of this priority.
    function queue.before(group, priority)
      look(group)
      return ahead_of(group, priority)
    end

    function queue.wait(group, op, seq, priority, text, wait, enqueued, fast)
      local position, deadline, estimate = queue.before(group, priority) + 1, wait, 0
      if op ~= 'return' then
        if fast or wait == 0 or op == 'submit' then
          estimate = wait_for(group, costs_of(text), costs_ahead(group, priority) or {})
          estimate = math.max(estimate, paused_until(group) - now)
        end
        if wait == 0 or fast and wait > 0 and estimate > wait then
          return { 'T', estimate }
        end
        save(group)
        if not has_room(group, priority) then
          return { 'F' }
        end
        deadline = wait > 0 and now + wait or 0
      end
      enqueued = enqueued > 0 and enqueued or arrival(group)
      local entry = new_entry(client, seq, int(enqueued), int(deadline), text)
      local lapsed = join(group, priority, entry, enqueued)
      return { 'Q', entry.text, position, estimate, lapsed }
    end

    function queue.finish(group)
      if group.joined then
        keep(group)
      end
      nudge(group)
    end

    return queue
  end

  -- The queue's part, where anybody waits, may be granted or has joined since.
  local function queue_of(group)
    if group.joined or not is_quiet(group) then
      return part_of('queue')
    end
  end

  local function answer(group, text, charges, id)
    local queue, pause = queue_of(group), paused_until(group)
    local ahead = queue and queue.ahead(group)
    if pause == 0 and not ahead then
      return { decide(group, text, charges, id) }
    end
    local retry, binds = wait_for(group, costs_of(text), pause == 0 and ahead or nil)
    if pause ~= 0 then
      retry = pause > 0 and math.max(retry, pause - now) or -1
    end
    local index, remaining, reset = state_of(group, binds)
    return { pause == 0 and QUEUED or PAUSED, index, remaining, reset, retry }
  end

  local function admitted(group, stamp)
    local index, remaining, reset = state_of(group, 0)
    return { 'A', index, remaining, reset, stamp }
  end

  local function request(group, op, text, turn, level, wait, joined, fast, again)
    local enqueued = tonumber(joined)
    local priority = math.min(tonumber(level) + 1, group.priorities)
    local seq = match(turn, '^%d+')
    local id = client .. '.' .. seq
    if again or op == 'return' then
      local known = part_of('queue').known(group, id, enqueued)
      local before = not known and (find_taken(group, turn) or group.holds and part_of('held').has(group, id, text) and now)
      if known or before then
        return known or admitted(group, tonumber(before))
      end
    end
    local queue = queue_of(group)
    local first = not queue or queue.before(group, priority) == 0
    if op ~= 'return' and first and paused_until(group) == 0 and fits(group, costs_of(text)) then
      charge(group, text, id)
      note_taken(group, turn, int(now))
      return admitted(group, now)
    end
    return part_of('queue').wait(group, op, seq, priority, text, tonumber(wait), enqueued, fast == '1')
  end

  -- @include run

  -- Hits and checks mostly cost the usual, and look alike.
  local function read(entry)
    if entry == 'hit -' then
      return 'hit', '-'
    end
    return match(entry, '^(%l+) (%S+) ?(.*)$')
  end

  local REQUEST = '^(%l+) (%S+) (%S+) (%d+) (%-?%d+) (%d+) (%d)$'
  local serve_group = server(2, function(group, a)
    local op, text, turn, level, wait, joined, fast = match(ARGV[a], REQUEST)
    if op then
      return request(group, op, text, turn, level, wait, joined, fast, ARGV[a + 1] == '1')
    end
    local kind, cost, rest = read(ARGV[a])
    if kind == 'shadow' then
      return answer(group, cost, true, client .. '.' .. rest)
    end
    return answer(group, cost, kind == 'hit')
  end, function(group)
    save_taken(group)
    if group.looked then
      part_of('queue').finish(group)
    end
  end)
  return serve_group, from_end
end

local serve_other, from_end
local replies, a, k = {}, 7, 1
for i = 1, tonumber(ARGV[6]) do
  local entries = tonumber(ARGV[a + 2])
  local ok, reply = pcall(admit_usual, a, k, entries)
  if ok and not reply then
    if not serve_other then
      serve_other, from_end = make_others()
    end
    reply, a, k = serve_other(a, k)
  else
    if not ok and type(reply) == 'table' then
      reply = reply.err
    end
    a, k = a + 3 + 2 * entries, k + 9 + levels
  end
  replies[i] = reply
end
return from_end and from_end(replies) or replies
