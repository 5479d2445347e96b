-- Store revocations, and tell every node. KEYS: the life, the hash of revocations, the control log, the order in which
-- they end. ARGV: highest generation seen, an epoch for a new life, entries of the log, the format of its entries, then
-- for each: target, at, until (Unix seconds). The later values count. What is known already is not told again, so a
-- node can write back what it knows. Returns the generation and the number of the log's last entry.
local g, epoch, _, is_new = life(KEYS[1], ARGV[1], ARGV[2])
if is_new then redis.call('UNLINK', KEYS[3]) end
local b = tonumber(redis.call('HGET', KEYS[1], 'b')) or 0
for i = 5, #ARGV, 3 do
  local target, at, till = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local known = redis.call('HGET', KEYS[2], target)
  local known_at, known_till = 0, 0
  if known then
    local first, second = string.match(known, '(%S+) (%S+)')
    known_at, known_till = tonumber(first), tonumber(second)
  end
  if at > known_at or till > known_till then
    local text = string.format('%.6f %.6f', math.max(at, known_at), math.max(till, known_till))
    redis.call('HSET', KEYS[2], target, text)
    redis.call('ZADD', KEYS[4], string.format('%.6f', math.max(till, known_till)), target)
    b = b + 1
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], int(g) .. '-' .. int(b), ARGV[4], epoch, 'revoked', target .. ' ' .. text)
  end
end
redis.call('HSET', KEYS[1], 'b', int(b))
-- A day later than they end: the engine's clock may be wrong for a moment.
local over = redis.call('ZRANGE', KEYS[4], '-inf', engine_time() - 86400, 'BYSCORE', 'LIMIT', 0, 50)
for _, target in ipairs(over) do
  redis.call('HDEL', KEYS[2], target)
  redis.call('ZREM', KEYS[4], target)
end
return {int(g), int(b)}
