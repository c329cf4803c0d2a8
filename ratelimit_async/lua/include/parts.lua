-- Most of a script's start is the making of its functions: those of a part are made when something first needs them.

local parts, made = {}, {}

local function part_of(name)
  local part = made[name]
  if not part then
    part = parts[name]()
    made[name] = part
  end
  return part
end
