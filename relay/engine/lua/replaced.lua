-- Tell all nodes of connections whose places were taken. KEYS: the life, the control log. ARGV: highest generation seen,
-- an epoch for a new life, entries of the log, the format of its entries, then for each: connection and session. To
-- tell twice does no harm.
local g, epoch, _, is_new = life(KEYS[1], ARGV[1], ARGV[2])
if is_new then redis.call('UNLINK', KEYS[2]) end
local b = tonumber(redis.call('HGET', KEYS[1], 'b')) or 0
for i = 5, #ARGV do
  b = b + 1
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], int(g) .. '-' .. int(b), ARGV[4], epoch, 'replaced', ARGV[i])
end
redis.call('HSET', KEYS[1], 'b', int(b))
return {int(g), int(b)}
