-- Write who a node is and how it is, and how far its audit log is. KEYS: the nodes, the heads. ARGV: the node, which is
-- the writer of its audit log; when its process began; oldest and newest format that it reads, the format that it
-- writes; 1 if it has ended; its figures. Then of its audit log: number and hash of the last record when the process
-- began, number and hash of the head ("0" and "" for none), seconds for which a head is kept, and where the log is.
--
-- Returns the engine's time, what the engine knew of the audit log that is not in the file ("" for nothing), and all
-- nodes: writer and value in turn. A node that was not seen for an hour is removed.
local FORGET_S = 3600
local N, H = KEYS[1], KEYS[2]
local node, began = ARGV[1], tonumber(ARGV[2])
local now = engine_time()

local known = redis.call('HGET', N, node)
local its_began = known and tonumber(string.match(known, '^%S+ (%S+)')) or 0
local is_late = its_began > began  -- another process continues the log of this one already
if not is_late then
  local head = {string.format('%.3f', now), ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]}
  redis.call('HSET', N, node, table.concat(head, ' '))
end
local all = redis.call('HGETALL', N)
for i = 1, #all, 2 do
  local seen = tonumber(string.match(all[i + 1], '^%S+'))
  if math.abs(now - seen) > FORGET_S then redis.call('HDEL', N, all[i]) end
end

-- A head: number, hash, when it was written, until when it is kept, when the writing process began, where the log is.
-- What an earlier process has told, and what is not in the file any more, is kept beside it: the log was cut.
local found = ''
local seq, hash = tonumber(ARGV[10]), ARGV[11]
local known_seq, known_hash, known_until, known_began = 0, '', 0, 0
local head = redis.call('HGET', H, node)
if head then
  local first, second, _, third, fourth = string.match(head, '^(%d+) (%S+) (%S+) (%S+) (%S+)')
  known_seq, known_hash, known_until, known_began = tonumber(first), second, tonumber(third), tonumber(fourth)
  local opened = tonumber(ARGV[8])
  if known_began < began and (known_seq > opened or (known_seq == opened and known_hash ~= ARGV[9])) then
    redis.call('HSETNX', H, node .. '!' .. int(known_seq), head)
    found = int(known_seq) .. ':' .. known_hash
  end
end
local till = now + tonumber(ARGV[12])
if seq > 0 and known_began <= began and (known_seq ~= seq or known_hash ~= hash or till - known_until > 60) then
  local at = string.format('%.3f %.0f', now, till)
  redis.call('HSET', H, node, int(seq) .. ' ' .. hash .. ' ' .. at .. ' ' .. ARGV[2] .. ' ' .. ARGV[13])
  -- Some of them at each write, from any place on: there may be as many as the logs of a year.
  local heads = redis.call('HSCAN', H, redis.call('TIME')[2], 'COUNT', 100)[2]
  for i = 1, #heads, 2 do
    if tonumber(string.match(heads[i + 1], '^%d+ %S+ %S+ (%S+)')) < now then redis.call('HDEL', H, heads[i]) end
  end
end
table.insert(all, 1, found)
table.insert(all, 1, string.format('%.3f', now))
return all
