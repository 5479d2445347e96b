-- Number publications and put them into the log. KEYS: the life, then hashes by channel: number, last value, versions;
-- the nodes' last batches, the log. ARGV: highest generation seen, an epoch for a new life, the node, the number of its
-- batch, the most channels, the bytes of the log, the prefixes of the keys of histories and of idempotency keys, the
-- format of the log's entries, then seven for each item: kind, channel, "ts source_ts" (- for none), data, "epoch
-- version", idempotency key, "messages milliseconds" of history; "" for what an item does not have.
--
-- Kinds: p a publication, a a sign of life, r forget versions and keys, x remove the channel (data: "epoch seq", or ""
-- for any). Returns generation, entry of the log, epoch, and an answer for each item: a number, with s (stale) or d
-- (duplicate) before it if it was dropped, or f: too many channels. For r and x: 1 or 0.
--
-- Everything is decided before the first write, because Redis does not undo what a script has written.
local KEYS_LIVE_MS = 300000
local FIRST, STRIDE = 10, 7
local E, Q, V, N, M, L = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local node, batch = ARGV[3], tonumber(ARGV[4])
local g, epoch, _, is_new = life(E, ARGV[1], ARGV[2])
if is_new then redis.call('UNLINK', Q, N, M, L) end

-- A batch whose reply was lost comes again: it gets the reply of then.
local last = redis.call('HGET', M, node)
if last then
  local number, _, reply = string.match(last, '^(%d+) (%d+) (.*)$')
  if tonumber(number) == batch then return reply end
  if tonumber(number) > batch then return redis.error_reply('LATE a later batch of this node was executed') end
end

local state = redis.call('HMGET', E, 'b', 'removed', 'bytes')
local b, removed, bytes = tonumber(state[1]) or 0, tonumber(state[2]) or 0, tonumber(state[3]) or 0

local names, known = {}, {}
for i = FIRST, #ARGV, STRIDE do
  local name = ARGV[i + 1]
  if not known[name] then
    known[name] = {}
    names[#names + 1] = name
  end
end
local seqs, versions = redis.call('HMGET', Q, unpack(names)), redis.call('HMGET', N, unpack(names))
local channels = redis.call('HLEN', V)
for i, name in ipairs(names) do
  local channel = known[name]
  channel.seq = tonumber(seqs[i])
  channel.version_epoch, channel.version, channel.keys_from = -1, -1, 0
  if versions[i] then
    local first, second, third = string.match(versions[i], '^(%S+) (%S+) (%S+)$')
    channel.version_epoch, channel.version, channel.keys_from = tonumber(first), tonumber(second), tonumber(third)
  end
  if not channel.seq then channel.keys_from = math.max(channel.keys_from, removed) end
  channel.exists = channel.seq ~= nil or redis.call('HEXISTS', V, name) == 1
  channel.keys, channel.history = {}, {}
end

local answers, entry, size = {}, {}, 0
local new_keys = {}  -- key and what it has, in turn
local function tell(kind, text)
  local at = #entry
  entry[at + 1], entry[at + 2] = kind, text
  size = size + #text + 8
end

local function publish(i, name, channel)
  if not channel.exists then
    if channels >= tonumber(ARGV[5]) then return 'f' end
  end
  local key = ARGV[i + 5]
  if key ~= '' then
    key = ARGV[8] .. name .. ':' .. key
    local seq = channel.keys[key]
    if seq == nil and not channel.forgot then
      local found = redis.call('GET', key)
      if found then
        local of, number = string.match(found, '^(%S+) (%d+)$')
        if of == epoch and tonumber(number) > channel.keys_from then seq = tonumber(number) end
      end
    end
    if seq then return 'd' .. int(seq) end
  end
  local seq = channel.seq or removed
  if ARGV[i + 4] ~= '' then
    local version_epoch, version = string.match(ARGV[i + 4], '^(%d+) (%d+)$')
    version_epoch, version = tonumber(version_epoch), tonumber(version)
    if version_epoch < channel.version_epoch
      or (version_epoch == channel.version_epoch and version <= channel.version) then
      return 's' .. int(seq)
    end
    channel.version_epoch, channel.version, channel.versioned = version_epoch, version, true
  end
  if not channel.exists then
    channel.exists = true
    channels = channels + 1
  end
  if not channel.seq then  -- the first one in this epoch, or since it was removed
    channel.fresh = true
    channel.keys_from = removed
    if removed > 0 then channel.versioned = true end
  end
  seq = seq + 1
  channel.seq = seq
  local number = string.format('%d', seq)  -- `int` takes twice as long
  if key ~= '' then
    channel.keys[key] = seq
    local at = #new_keys
    new_keys[at + 1], new_keys[at + 2] = key, epoch .. ' ' .. number
  end
  channel.value = number .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3]
  tell('p', name .. ' ' .. channel.value)
  if ARGV[i + 6] ~= '' then
    channel.history[#channel.history + 1] = {number, channel.value, ARGV[i + 6]}
  end
  return number
end

local function remove(i, name, channel)
  if not channel.exists then return '0' end
  local value = channel.value and epoch .. ' ' .. channel.value or redis.call('HGET', V, name)
  local of, seq = string.match(value, '^(%S+) (%d+)')
  if ARGV[i + 3] ~= '' and ARGV[i + 3] ~= of .. ' ' .. seq then return '0' end
  if channel.seq then removed = math.max(removed, channel.seq) end
  channels = channels - 1
  known[name] = {
    version_epoch = -1, version = -1, keys_from = removed, keys = {}, history = {}, exists = false, gone = true,
    forgot = true,
  }
  tell('x', name)
  return '1'
end

for i = FIRST, #ARGV, STRIDE do
  local kind, name = ARGV[i], ARGV[i + 1]
  local channel = known[name]
  if kind == 'p' then
    answers[#answers + 1] = publish(i, name, channel)
  elseif kind == 'a' then
    tell('a', name .. ' ' .. ARGV[i + 2])
    answers[#answers + 1] = int(channel.seq or 0)
  elseif kind == 'r' then
    answers[#answers + 1] = channel.exists and '1' or '0'
    if channel.exists then
      channel.version_epoch, channel.version, channel.versioned = -1, -1, true
      channel.keys_from, channel.keys, channel.forgot = channel.seq or 0, {}, true
    end
  else
    answers[#answers + 1] = remove(i, name, channel)
  end
end

-- From here on everything is written.
local new_seqs, new_values, new_versions = {}, {}, {}  -- channel and what it has, in turn
for _, name in ipairs(names) do
  local channel = known[name]
  if channel.gone or channel.fresh then redis.call('UNLINK', ARGV[7] .. name) end
  if channel.gone then
    redis.call('HDEL', V, name)
    redis.call('HDEL', Q, name)
    redis.call('HDEL', N, name)
  end
  if channel.value then
    local at = #new_seqs
    new_seqs[at + 1], new_seqs[at + 2] = name, int(channel.seq)
    new_values[at + 1], new_values[at + 2] = name, epoch .. ' ' .. channel.value
    local key, messages, ms = ARGV[7] .. name, nil, nil
    for _, item in ipairs(channel.history) do
      messages, ms = string.match(item[3], '^(%d+) (%d+)$')
      redis.call('XADD', key, 'MAXLEN', '~', messages, item[1] .. '-0', 'v', epoch .. ' ' .. item[2])
    end
    if ms then redis.call('PEXPIRE', key, ms) end
  end
  if channel.versioned and channel.exists then
    local at = #new_versions
    new_versions[at + 1] = name
    new_versions[at + 2] = int(channel.version_epoch) .. ' ' .. int(channel.version) .. ' ' .. int(channel.keys_from)
  end
end
if #new_seqs > 0 then
  redis.call('HSET', Q, unpack(new_seqs))
  redis.call('HSET', V, unpack(new_values))
end
if #new_versions > 0 then redis.call('HSET', N, unpack(new_versions)) end
for i = 1, #new_keys, 2 do redis.call('SET', new_keys[i], new_keys[i + 1], 'PX', KEYS_LIVE_MS) end
if #entry > 0 then
  b = b + 1
  redis.call('XADD', L, int(g) .. '-' .. int(b), ARGV[9], epoch, unpack(entry))
  -- Each eighth of the log's bytes, the entries before the last eight eighths are cut off.
  local eighth = math.max(1, math.floor(tonumber(ARGV[6]) / 8))
  local before, after = math.floor(bytes / eighth), math.floor((bytes + size) / eighth)
  bytes = bytes + size
  redis.call('HSET', E, 'b', int(b), 'bytes', int(bytes), 'removed', int(removed))
  if after > before then
    local cut = redis.call('HGET', E, 'mark' .. (after + 1) % 9)
    if cut and after >= 8 then redis.call('XTRIM', L, 'MINID', int(g) .. '-' .. cut) end
    for step = math.max(before + 1, after - 8), after do redis.call('HSET', E, 'mark' .. step % 9, int(b)) end
  end
end
local now = redis.call('TIME')[1]
local reply = int(g) .. ' ' .. int(b) .. ' ' .. epoch .. ' ' .. table.concat(answers, ',')
if not last then
  local all = redis.call('HGETALL', M)
  for i = 1, #all, 2 do
    if tonumber(string.match(all[i + 1], '^%d+ (%d+)')) < now - 3600 then redis.call('HDEL', M, all[i]) end
  end
end
redis.call('HSET', M, node, int(batch) .. ' ' .. now .. ' ' .. reply)
return reply
