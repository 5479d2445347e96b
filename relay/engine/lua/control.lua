-- Begin to read the control log. KEYS: the life, the control log. ARGV: highest generation seen, an epoch for a new
-- life. Returns the generation and the number of the log's last entry.
local g, _, _, is_new = life(KEYS[1], ARGV[1], ARGV[2])
if is_new then redis.call('UNLINK', KEYS[2]) end
return {int(g), redis.call('HGET', KEYS[1], 'b') or '0'}
