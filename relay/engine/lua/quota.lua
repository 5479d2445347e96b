-- Charge the quota of a publisher. KEYS[1]: its buckets. ARGV: the time ("" for the engine's; tests set it), then for
-- messages and for bytes: tokens a second (0: no quota), the most at once, how many were used. Returns the levels, which
-- are below 0 while more was used than the quota allows.
local now = tonumber(ARGV[1]) or engine_time()
local known = redis.call('HMGET', KEYS[1], 'at', 'messages', 'bytes')
-- A clock that is set back gives nothing and takes nothing.
local passed = math.max(0, now - (tonumber(known[1]) or now))
local levels, full_in = {}, 0
for i = 0, 1 do
  local rate, burst, used = tonumber(ARGV[2 + 3 * i]), tonumber(ARGV[3 + 3 * i]), tonumber(ARGV[4 + 3 * i])
  local level = math.min(burst, (tonumber(known[2 + i]) or burst) + passed * rate) - used
  if rate > 0 then full_in = math.max(full_in, (burst - level) / rate) end
  levels[i + 1] = string.format('%.6f', level)
end
redis.call('HSET', KEYS[1], 'at', string.format('%.6f', now), 'messages', levels[1], 'bytes', levels[2])
redis.call('PEXPIRE', KEYS[1], int(math.ceil(full_in * 1000) + 1000))
return levels
