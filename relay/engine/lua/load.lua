-- Where the log is now. KEYS: as in publish.lua. ARGV: highest generation seen, an epoch for a new life. Returns the
-- generation, the number of the log's last entry, and the epoch.
local g, epoch, _, is_new = life(KEYS[1], ARGV[1], ARGV[2])
if is_new then redis.call('UNLINK', KEYS[2], KEYS[4], KEYS[5], KEYS[6]) end
return {int(g), redis.call('HGET', KEYS[1], 'b') or '0', epoch}
