-- Purpose: grants the best waiting requests that the limits allow: pops, charges, records and tells in one step.
-- KEYS:    see include/prelude.lua
-- ARGV:    see include/prelude.lua; an entry is the batch size and the slack, us, for which a next grant may be
--          put off to meet more of them in one call
-- Reply:   {'O', us} another client drives this key for so long; {'P', granted} as its driver; `next` is us to the
--          next possible grant, or -1: nobody waits and the driver's lease is given up
-- Cost:    O(batch size x log 1000)
-- @include prelude
-- @include limits
-- @include queue
-- @include run

local function take(group, batch)
  local grants, pops = {}, {}
  for p, queue in ipairs(group.queues) do
    local popped, blocked, waiting = 0, false, depths_of(group)[p]
    while not blocked and popped < waiting do
      local texts = redis.call('LRANGE', queue, popped, popped + batch - 1)
      if #texts == 0 then
        break
      end
      for _, text in ipairs(texts) do
        local entry = entry_of(text)
        if is_live(group, entry) then
          if #grants >= batch or not fits(group, costs_of(entry.cost)) then
            blocked = true
            break
          end
          charge(group, entry.cost, entry.id)
          entry.priority = p
          grants[#grants + 1] = entry
        end
        popped = popped + 1
        count(group, p, entry, -1)
      end
    end
    pops[p] = popped
    if blocked then
      break
    end
  end
  return grants, pops
end

local function commit(group, grants, pops)
  save(group)
  if #grants > 0 then
    local records, leases, told, owners = {}, {}, {}, {}
    local index, remaining, reset = state_of(group, 0)
    local state = table.concat({ int(index), int(remaining), int(reset) }, ' ')
    local lease = int(now + client_lease)
    for _, entry in ipairs(grants) do
      records[#records + 1] = entry.id
      records[#records + 1] = table.concat({ 'G', int(now), int(entry.priority), state, entry.text }, ' ')
      leases[#leases + 1] = lease
      leases[#leases + 1] = entry.id
      if not told[entry.client] then
        told[entry.client] = { 'g' }
        owners[#owners + 1] = entry.client
      end
      table.insert(told[entry.client], entry.seq)
    end
    local life = int(QUEUE_TTL + client_lease / 1000)
    redis.call('HSET', group.records, unpack(records))
    redis.call('ZADD', group.leases, unpack(leases))
    redis.call('PEXPIRE', group.records, life)
    redis.call('PEXPIRE', group.leases, life)
    for _, owner in ipairs(owners) do
      tell(owner, table.concat(told[owner], ' '))
    end
  end
  for p, popped in pairs(pops) do
    if popped > 0 then
      redis.call('LTRIM', group.queues[p], popped, -1)
    end
  end
end

return run(2, function(group, a)
  local batch, slack = tonumber(ARGV[a]), tonumber(ARGV[a + 1])
  local owner = redis.call('GET', group.driver)
  if owner and owner ~= client then
    return { 'O', redis.call('PTTL', group.driver) * 1000 }
  end
  go_on_when_full(group)
  redis.call('SET', group.driver, client, 'PX', int(driver_lease / 1000))
  look(group)
  local grants = {}
  if paused_until(group) == 0 then
    local pops
    grants, pops = take(group, batch)
    commit(group, grants, pops)
  end
  local head = head_of(group)
  if head then
    local wait = wait_of(group, head)
    group.next = (wait > 0 and group.depth > 1) and wait + slack or wait
    keep(group)
  else
    redis.call('DEL', group.driver)
  end
  return { 'P', #grants }
end)
