-- Keeps lines of what a client was charged for; see taken.lua.

-- Long enough for a reply that was lost to be asked for again.
local TAKEN_TTL, TAKEN_MOST = 20000, 32768

local function keep_taken(key, lines)
  local length = call('APPEND', key, table.concat(lines))
  if length > TAKEN_MOST then
    call('SET', key, match(call('GET', key), '\n(.*)$', length / 2))
  end
  call('PEXPIRE', key, TAKEN_TTL)
end
