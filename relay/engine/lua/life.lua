-- The life of the data: it is bound to the life of the server. A server that lost data, or that became the master
-- without having all of it, has another replication id, or has no entry here.

-- Return the generation, the epoch, the time at which the life began (engine's Unix seconds), and whether it began now.
-- `seen` is the highest generation that the caller has seen.
--
-- No two lives may have the same generation: a node that knows the first one would take the second one for it, and not write
-- back what was lost in between. After a second loss the caller may be a node that has not seen the life before it. So
-- the time has microseconds, and while the clock is behind, the caller's random epoch decides.
local function life(key, seen, epoch)
  local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  local known = redis.call('HMGET', key, 'replid', 'g', 'epoch', 'since')
  local g = tonumber(known[2]) or 0
  seen = tonumber(seen)
  if known[1] == replid and g >= seen then
    return g, known[3], tonumber(known[4]), false
  end
  local time = redis.call('TIME')
  local now = tonumber(time[1])
  local above = math.max(g, seen) + 1
  g = now * 1000000 + tonumber(time[2])
  if g < above then g = above + tonumber(string.sub(redis.sha1hex(epoch), 1, 5), 16) end
  redis.call('DEL', key)
  redis.call('HSET', key, 'replid', replid, 'g', string.format('%.0f', g), 'epoch', epoch, 'since', now)
  return g, epoch, now, true
end

-- Return a number as text without an exponent.
local function int(number)
  return string.format('%.0f', number)
end

-- Return the engine's time in seconds.
local function engine_time()
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1000000
end
