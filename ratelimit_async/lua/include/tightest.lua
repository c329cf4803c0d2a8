-- Which of several limits a reply tells of where none denies: the one with the smallest share remaining.

local function tightest(limits, used_of)
  local index, least = 1, 2
  for n, limit in ipairs(limits) do
    local share = (limit.amount - used_of(limit)) / limit.amount
    if share < least then
      least, index = share, n
    end
  end
  return index
end
