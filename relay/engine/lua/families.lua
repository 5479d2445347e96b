-- Refresh families: what relay/state/families.py promises. KEYS[1]: the life. ARGV: highest generation seen, an epoch
-- for a new life, the prefix of the keys, the caller's time (Unix seconds), seconds to add to the engine's time (0, but
-- for tests), the operation, and its arguments. Returns the generation, then what the operation returns.
--
-- A call may come twice, because its reply was lost: the caller chooses the ids and leases, so the second one is
-- recognized. Times are Unix seconds, tokens are hexadecimal hashes.
--
-- Keys: t:<token> is the id of its family; f:<id> the family, a hash; s:<session> and u:<user> the ids of families by
-- the end of their cookies. A family's `tokens` are "hash shown redeemed" with the newest at the end, and so are its
-- `sessions`. `g` is the generation in which it last got a result or gave a lease, `r` the one in which a node wrote it
-- back, and `v` counts its changes.
local SPENT_AFTER, KEPT, LEASES_END = 60, 32, 120
local g, _, since, is_new = life(KEYS[1], ARGV[1], ARGV[2])
local P, operation = ARGV[3], ARGV[6]
local now, theirs = engine_time() + tonumber(ARGV[5]), tonumber(ARGV[4])
local differs = math.abs(now - theirs) > 1
-- Results are stored by a wrong clock too, so a life may begin with one. Its begin counts from the first call by a right
-- clock: tokens from before must not be leased too early, or wait for an hour.
if differs then
  if is_new then redis.call('HSET', KEYS[1], 'unsure', '1') end
elseif since > now + 1 or redis.call('HGET', KEYS[1], 'unsure') == '1' then
  since = math.ceil(now)
  redis.call('HSET', KEYS[1], 'since', int(since), 'unsure', '')
end
-- A time that is too late spends no token too early.
if differs then now = math.max(now, theirs) end

local function read(id)
  local flat = redis.call('HGETALL', P .. 'f:' .. id)
  if #flat == 0 then return nil end
  local row = {id = id, list = {}}
  for i = 1, #flat, 2 do row[flat[i]] = flat[i + 1] end
  for hash, shown, redeemed in string.gmatch(row.tokens, '(%x+) (%d+) (%d+)') do
    row.list[#row.list + 1] = {hash = hash, shown = tonumber(shown), redeemed = tonumber(redeemed)}
  end
  return row
end

local function load(token)
  local id = redis.call('GET', P .. 't:' .. token)
  return id and read(id) or nil
end

local function save(row, changes)
  local flat = {'v', int(tonumber(row.v) + 1)}
  row.v = flat[2]
  for name, value in pairs(changes) do
    row[name] = value
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  redis.call('HSET', P .. 'f:' .. row.id, unpack(flat))
end

local function packed(list)
  local parts = {}
  for i, token in ipairs(list) do parts[i] = token.hash .. ' ' .. int(token.shown) .. ' ' .. int(token.redeemed) end
  return table.concat(parts, ',')
end

local function split(sessions)
  local found = {}
  for session in string.gmatch(sessions, '[^\n]+') do found[#found + 1] = session end
  return found
end

local function index(key, row)
  redis.call('ZADD', key, row.ends, row.id)
  local ms = int((tonumber(row.ends) - now) * 1000)
  redis.call('PEXPIRE', key, ms, 'NX')
  redis.call('PEXPIRE', key, ms, 'GT')
  for _, over in ipairs(redis.call('ZRANGE', key, '-inf', now, 'BYSCORE', 'LIMIT', 0, 4)) do
    redis.call('ZREM', key, over)
  end
end

-- Keep a family until its end, and make it found by its tokens, its sessions and its user.
local function keep(row, is_restored)
  local ms = int(math.max(1, (tonumber(row.ends) - now) * 1000))
  redis.call('PEXPIRE', P .. 'f:' .. row.id, ms)
  for i, token in ipairs(row.list) do
    local key = P .. 't:' .. token.hash
    local of = redis.call('GET', key)
    -- A backend may give out one token at each log-in of a user: it is then of the newest log-in.
    if not of or of == row.id or (i == #row.list and not is_restored) then
      redis.call('SET', key, row.id, 'PX', ms)
    end
  end
  for _, session in ipairs(split(row.sessions)) do index(P .. 's:' .. session, row) end
  if row.subject ~= '' then index(P .. 'u:' .. row.subject, row) end
end

local function create(token, id, about, address, kept_s)
  local row = {id = id, list = {{hash = token, shown = 0, redeemed = 0}}, v = '0'}
  redis.call('UNLINK', P .. 'f:' .. id)
  save(row, {
    subject = about and about.subject or '', login = about and about.login or '0', known = about and '1' or '',
    sessions = about and about.session or '', ends = string.format('%.3f', now + kept_s), ended = '', by = '',
    address = address, lease = '', leased = '0', done = '', g = int(g), r = '0', tokens = packed(row.list),
  })
  keep(row)
  return row
end

local function forget(row)
  for _, token in ipairs(row.list) do
    if redis.call('GET', P .. 't:' .. token.hash) == row.id then redis.call('UNLINK', P .. 't:' .. token.hash) end
  end
  for _, session in ipairs(split(row.sessions)) do redis.call('ZREM', P .. 's:' .. session, row.id) end
  if row.subject ~= '' then redis.call('ZREM', P .. 'u:' .. row.subject, row.id) end
  redis.call('UNLINK', P .. 'f:' .. row.id)
end

local function position(row, token)
  for i, one in ipairs(row.list) do
    if one.hash == token then return i end
  end
end

local function newest_session(row)
  return string.match(row.sessions, '[^\n]*$')
end

local function reply(...)
  return {int(g), ...}
end

local function whose(kind, row, ...)
  return reply(kind, newest_session(row), row.subject, row.login, ...)
end

-- What a node keeps of a family, to write it back after a loss of data.
local function copy(row)
  return {row.id, redis.call('HGETALL', P .. 'f:' .. row.id)}
end

local function note_shown(row, at)
  -- The first token has no predecessor that it could spend.
  if at and at > 1 and row.list[at].shown == 0 then
    row.list[at].shown = math.floor(now)
    save(row, {tokens = packed(row.list)})
  end
end

local function is_spent(row, at, unconfirmed_s)
  local first
  for i = at + 1, #row.list do
    local shown = row.list[i].shown
    if shown > 0 and (not first or shown < first) then first = shown end
  end
  if first then return now - first > SPENT_AFTER end
  return now - row.list[at].redeemed > unconfirmed_s
end

local function finish(row, ended_by)
  save(row, {ended = '1', by = ended_by, lease = '', leased = '0'})
  redis.call('HDEL', P .. 'f:' .. row.id, 'sealed')
end

local function about(session, subject, login)
  return {session = session, subject = subject, login = login}
end

-- Return the family of a lease, or nil if it was ended or the lease is over. `given` is the generation of the lease.
-- If the data of that life were lost, nobody else has had a lease since, so the family begins again with what is known.
local function leased(token, lease, given, id, known, address, kept_s)
  local row = load(token)
  if row and row.ended == '1' then return nil end
  if row and row.lease == lease then return row end
  if given >= g or (row and tonumber(row.g) >= g) then return nil end
  return row or create(token, id, known, address, kept_s)
end

local operations = {}

function operations.life()
  return reply('ok')
end

-- token, id, session, subject, login, address, seconds to keep it
function operations.begin(token, id, session, subject, login, address, kept_s)
  create(token, id, about(session, subject, login), address, tonumber(kept_s))
  return reply('ok')
end

function operations.find(token)
  local row = load(token)
  if not row or row.known == '' then return reply('none') end
  return whose('ok', row)
end

function operations.show(token)
  local row = load(token)
  if row then note_shown(row, position(row, token)) end
  return reply('ok')
end

function operations.take(token, id, lease, lease_s, unconfirmed_s, kept_s, shown, young_s)
  if differs then return reply('clock') end
  lease_s = tonumber(lease_s)
  -- In a young life a lease or a result of the life before may be missing.
  local settled_in = since + lease_s - now
  local row = load(token)
  if not row then
    if settled_in > 0 then return reply('wait', int(settled_in * 1000)) end
    row = create(token, id, nil, '', tonumber(kept_s))
  end
  if row.ended == '1' then return whose('refused', row, 'ended') end
  local is_of_now = tonumber(row.g) >= g
  local at, newest = position(row, token), row.list[#row.list]
  if not at then return whose('refused', row, 'lost') end  -- an older copy of the family was written back
  if shown == '1' then note_shown(row, at) end
  if at < #row.list and is_spent(row, at, tonumber(unconfirmed_s)) then return whose('refused', row, 'spent') end
  local is_recent = now - newest.redeemed < SPENT_AFTER
  if not row.sealed and newest.redeemed > 0 then
    return whose('refused', row, is_recent and 'unusable' or 'lost')
  end
  if not is_of_now and tonumber(row.r) < g and settled_in > 0 then return reply('wait', int(settled_in * 1000)) end
  -- `is_recent`: a backend that does not rotate; all who come together get one access token.
  if row.sealed and (at < #row.list or is_recent) then
    local sealed_for = newest.redeemed > 0 and newest or row.list[#row.list - 1]
    return whose('succeeded', row, row.sealed, sealed_for.hash, newest.hash, row.address)
  end
  local made_at = #row.list > 1 and row.list[#row.list - 1].redeemed or 0
  if now - made_at < tonumber(young_s) then return reply('young') end
  if row.lease ~= lease then
    local free_in = tonumber(row.leased) - now
    if not is_of_now then free_in = math.max(free_in, settled_in) end
    if free_in > 0 then return reply('wait', int(free_in * 1000 + 1)) end
    save(row, {lease = lease, leased = string.format('%.3f', now + lease_s), g = int(g)})
  end
  return whose('redeem', row, row.known)
end

-- known: 1 if the lease named a family, which is then session, subject and login. After the address come the result:
-- the new token, what is sealed, 1 if its family is known, and the session, subject and login of that.
function operations.complete(token, lease, given, id, known, session, subject, login, kept_s, address, successor,
                             sealed, is_found, new_session, new_subject, new_login)
  kept_s = tonumber(kept_s)
  local before = known == '1' and about(session, subject, login) or nil
  local row = load(token)
  if row and row.done == lease and row.ended ~= '1' then return reply('ok', copy(row)) end  -- the same call again
  row = leased(token, lease, tonumber(given), id, before, address, kept_s)
  if not row then return reply('no') end
  if row.known == '' then
    row.subject, row.login = new_subject, new_login
  end
  row.list[#row.list].redeemed = math.floor(now)
  if successor ~= token then row.list[#row.list + 1] = {hash = successor, shown = 0, redeemed = 0} end
  local sessions = {}
  for _, one in ipairs(split(row.sessions)) do
    if one ~= new_session then sessions[#sessions + 1] = one end
  end
  if new_session ~= '' then sessions[#sessions + 1] = new_session end
  while #row.list > KEPT do
    local key = P .. 't:' .. table.remove(row.list, 1).hash
    if redis.call('GET', key) == row.id then redis.call('UNLINK', key) end
  end
  while #sessions > KEPT do redis.call('ZREM', P .. 's:' .. table.remove(sessions, 1), row.id) end
  save(row, {
    subject = row.subject, login = row.login, known = (row.known == '1' or is_found == '1') and '1' or '',
    ends = string.format('%.3f', now + kept_s), sessions = table.concat(sessions, '\n'), address = address,
    lease = '', leased = '0', done = lease, sealed = sealed, g = int(g), tokens = packed(row.list),
  })
  keep(row)
  return reply('ok', copy(row))
end

function operations.release(token, lease)
  local row = load(token)
  if not row or row.lease ~= lease or row.ended == '1' then return reply('ok') end
  if row.known == '' and #row.list == 1 and row.list[1].redeemed == 0 then
    forget(row)  -- strangers' tokens must not fill the memory while the backend is down
  else
    save(row, {lease = '', leased = '0'})
  end
  return reply('ok')
end

function operations.spend(token, lease, given, id, known, session, subject, login, kept_s)
  local before = known == '1' and about(session, subject, login) or nil
  local row = load(token)
  if row and row.done == lease and row.ended ~= '1' then return reply('ok', copy(row)) end  -- the same call again
  row = leased(token, lease, tonumber(given), id, before, '', tonumber(kept_s))
  if not row then return reply('ok') end
  row.list[#row.list].redeemed = math.floor(now)
  save(row, {lease = '', leased = '0', done = lease, g = int(g), tokens = packed(row.list)})
  redis.call('HDEL', P .. 'f:' .. row.id, 'sealed')
  return reply('ok', copy(row))
end

operations['end'] = function(token, id, ended_by)
  local row = load(token)
  if row and row.known == '1' then
    finish(row, ended_by)
    return reply('ok', copy(row))
  end
  if row then forget(row) end  -- the backend refuses it again; strangers' tokens must not fill the memory
  -- In a young life it may be a token whose family was lost, with a call that runs.
  if now < since + LEASES_END then finish(create(token, id, nil, '', LEASES_END), ended_by) end
  return reply('ok')
end

-- by: s: or u: and the session or user. Looks at most at `most` families from `first`. Returns how many there were, then
-- those that this call has ended.
function operations.end_sessions(by, first, most, ended_by)
  local ids = redis.call('ZRANGE', P .. by, first, first + most - 1)
  local found = reply(#ids)
  for _, id in ipairs(ids) do
    local row = read(id)
    if row and row.known == '1' and (row.ended ~= '1' or row.by == ended_by) then
      finish(row, ended_by)
      found[#found + 1] = copy(row)
    end
  end
  return found
end

-- Write families back that a node knows: for each its id, the number of its fields and values, and these.
function operations.restore(...)
  local values, i = {...}, 1
  while i < #values do
    local id, count = values[i], tonumber(values[i + 1])
    local row, theirs_ = read(id), {}
    for j = i + 2, i + 1 + count, 2 do theirs_[values[j]] = values[j + 1] end
    if row and tonumber(row.v) >= tonumber(theirs_.v) then
      if theirs_.ended == '1' and row.ended ~= '1' then finish(row, theirs_.by) end
    elseif not (row and row.ended == '1') and tonumber(theirs_.ends) > now then
      redis.call('UNLINK', P .. 'f:' .. id)
      redis.call('HSET', P .. 'f:' .. id, unpack(values, i + 2, i + 1 + count))
      row = read(id)
      keep(row, true)
    end
    if row then redis.call('HSET', P .. 'f:' .. id, 'r', int(g)) end
    i = i + 2 + count
  end
  return reply('ok')
end

return operations[operation](unpack(ARGV, 7))
