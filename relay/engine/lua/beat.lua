-- A node's sign of life, and places of its connections that the engine may have lost. KEYS: the life, the nodes. ARGV:
-- highest generation seen, an epoch for a new life, the caller's time (Unix seconds), the node, the prefix of places,
-- "alive" or "bye", then for each place: session, connection, when it was opened (Unix seconds). Returns the generation,
-- 1 if the node was heard of before, and the index of each place that another connection has taken.
local HEARD_WITHIN, KEPT, KEPT_MS = 10, 900, 900000
local now, node = engine_time(), ARGV[4]
local g = ARGV[1]
if math.abs(now - tonumber(ARGV[3])) <= 1 then g = life(KEYS[1], g, ARGV[2]) end  -- see claim.lua
g = int(tonumber(g))
if ARGV[6] == 'bye' then
  redis.call('HDEL', KEYS[2], node)
  return {g, 0}
end

local before = redis.call('HGET', KEYS[2], node)
if not before then
  local nodes = redis.call('HGETALL', KEYS[2])
  for i = 1, #nodes, 2 do
    if math.abs(now - tonumber(nodes[i + 1])) > KEPT then redis.call('HDEL', KEYS[2], nodes[i]) end
  end
end
redis.call('HSET', KEYS[2], node, string.format('%.3f', now))
local is_known = before and math.abs(now - tonumber(before)) < HEARD_WITHIN
local answers = {g, is_known and 1 or 0}
for i = 7, #ARGV, 3 do
  local key, connection = ARGV[5] .. g .. ':' .. ARGV[i], ARGV[i + 1]
  local kind, at = string.match(redis.call('HGET', key, connection) or '', '^(%a) (%S+)')
  if kind == 'x' then
    answers[#answers + 1] = (i - 7) / 3
  else
    redis.call('HSET', key, connection, string.format('o %s %.3f %s', at or ARGV[i + 2], now + KEPT, node))
    redis.call('PEXPIRE', key, KEPT_MS)
  end
end
return answers
