-- What entries ask for.

local parsed = {}

-- 'requests=3,tokens=900': units that are not named cost what they usually do; '-': all of them.
local function costs_of(text)
  local costs = parsed[text]
  if not costs then
    costs = {}
    for unit, cost in string.gmatch(text, '([%w_]+)=(%d+)') do
      costs[unit] = tonumber(cost)
    end
    parsed[text] = costs
  end
  return costs
end
