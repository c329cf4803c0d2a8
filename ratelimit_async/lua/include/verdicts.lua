-- What is said of a hit or check: it passes; it does not for a limit, for those who wait, or for a pause; and, by quick.lua
-- alone, that admit.lua has to say it.
local ALLOWED, LIMITED, QUEUED, PAUSED, LEFT = 0, 1, 2, 3, 4
