-- What the relay needs of a service: INFO and TIME in scripts. KEYS[1]: any key. Returns the replication id, the time,
-- the role, the version, and whether it is a server of a cluster ("cluster").
local replication, server = redis.call('INFO', 'replication'), redis.call('INFO', 'server')
redis.call('SET', KEYS[1], 'probe', 'PX', 1000)
return {
  string.match(replication, 'master_replid:(%S+)') or '',
  string.format('%.6f', engine_time()),
  string.match(replication, 'role:(%S+)') or '',
  string.match(server, 'valkey_version:(%S+)') or '',
  string.match(server, 'redis_version:(%S+)') or '',
  string.match(server, '_mode:(%S+)') or '',
}
