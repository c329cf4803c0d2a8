-- The usual key: one sliding window of requests. It is decided by window.lua alone.

-- @include window

-- One for all such keys: what the window of one holds, while it is served.
local window = {
  key = '',
  period = 0,
  used = 0,
  newest = 0,
  written = 0,
  total = 0,
  oldest = 0,
  base = 0,
  kept = 0,
  expired = 0,
  rows = 0,
}
