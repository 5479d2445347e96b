-- What the relay needs of a service: its commands, and INFO and TIME in scripts. KEYS[1]: any key. Returns the replication
-- id, the time, the role, the versions of Valkey and Redis, and whether it is a server of a cluster ("cluster"). If the user
-- may not run all commands, it returns "NOPERM" and their names instead.
local key = KEYS[1]
-- Each as it would be sent: Redis 7.0 crashes if one that is checked lacks an argument.
local COMMANDS = {
  {'info'}, {'time'}, {'evalsha', 'x', '0'}, {'del', key}, {'unlink', key}, {'exists', key}, {'get', key},
  {'set', key, 'x'}, {'pexpire', key, '1'}, {'hget', key, 'x'}, {'hset', key, 'x', 'x'}, {'hsetnx', key, 'x', 'x'},
  {'hdel', key, 'x'}, {'hlen', key}, {'hexists', key, 'x'}, {'hmget', key, 'x'}, {'hgetall', key}, {'hscan', key, '0'},
  {'xadd', key, '*', 'x', 'x'}, {'xread', 'STREAMS', key, '0'}, {'xrange', key, '-', '+'}, {'xtrim', key, 'MAXLEN', '1'},
  {'zadd', key, '1', 'x'}, {'zrange', key, '0', '1'}, {'zrem', key, 'x'},
}
if redis.acl_check_cmd then  -- since Redis 7
  local forbidden = {'NOPERM'}
  for _, command in ipairs(COMMANDS) do
    if not redis.acl_check_cmd(unpack(command)) then forbidden[#forbidden + 1] = command[1] end
  end
  if #forbidden > 1 then return forbidden end
end

local server = redis.pcall('INFO', 'server')
server = type(server) == 'string' and server or ''
local version = string.match(server, 'redis_version:(%S+)') or ''
if not redis.acl_check_cmd and (tonumber(string.match(version, '^%d+')) or 0) < 7 then
  return {'', '', '', '', version, ''}  -- too old, whatever else the user may do there
end
local replication = redis.call('INFO', 'replication')
redis.call('SET', key, 'probe', 'PX', 1000)
return {
  string.match(replication, 'master_replid:(%S+)') or '',
  string.format('%.6f', engine_time()),
  string.match(replication, 'role:(%S+)') or '',
  string.match(server, 'valkey_version:(%S+)') or '',
  version,
  string.match(server, '_mode:(%S+)') or '',
}
