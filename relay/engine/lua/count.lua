-- Count requests in the sliding windows of a limit. KEYS[1]: the window of a key. ARGV: "hit" or "back", the limit, the
-- window's seconds, the time ("" for the engine's; tests set it). Returns for "hit": the milliseconds to wait, 0 if the
-- request is allowed and counted. The same rule as relay/limits/memory.py:Windows.
local amount, expiry = tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4]) or engine_time()
local start, previous, current
local kept = redis.call('GET', KEYS[1])
if kept then
  start, previous, current = string.match(kept, '(%S+) (%d+) (%d+)')
  start, previous, current = tonumber(start), tonumber(previous), tonumber(current)
  -- Beyond a window in the future the clock was set back: the count begins again.
  if now >= start + 2 * expiry or now < start - expiry then
    start = nil
  elseif now >= start + expiry then
    start, previous, current = start + expiry, current, 0
  end
  now = math.max(now, start or now)
end

local function keep()
  redis.call('SET', KEYS[1], string.format('%.3f %d %d', start, previous, current), 'PX', int(2000 * expiry))
  return 0
end

if ARGV[1] == 'back' then
  if not start then return 0 end
  if current > 0 then current = current - 1 elseif previous > 0 then previous = previous - 1 end
  return keep()
end
-- A window begins with the key's first request.
if not start then start, previous, current = now, 0, 0 end
local ends_in = start + expiry - now
if math.floor(previous * ends_in / expiry + current) + 1 <= amount then
  current = current + 1
  return keep()
end
local wait = ends_in
if current < amount then  -- until the window before weighs little enough
  wait = ends_in - (amount - current) * expiry / previous
elseif current > amount then
  wait = ends_in + expiry - amount * expiry / current
end
return math.max(1000, math.ceil(wait * 1000))
