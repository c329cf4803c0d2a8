-- Room for one more in the queue, be it that another has to go; a durable task never has to.

local function drop_from(group, priority, command)
  local end_of = command == 'LPOP' and 0 or -1
  local text = depths_of(group)[priority] > 0 and redis.call('LINDEX', group.queues[priority], end_of)
  local entry = text and entry_of(text)
  if not entry or entry.task then
    return false
  end
  redis.call(command, group.queues[priority])
  count(group, priority, entry, -1)
  drop(group, entry, 'overflow')
  return true
end

local function has_room(group, priority)
  if group.depth < group.max_size then
    return true
  end
  local oldest, lowest = group.overflow == 'drop_oldest', group.overflow == 'drop_lowest'
  for p = group.priorities, priority, -1 do
    if oldest and drop_from(group, p, 'LPOP') or lowest and p > priority and drop_from(group, p, 'RPOP') then
      return true
    end
  end
  return false
end
