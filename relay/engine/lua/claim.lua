-- Use up tokens, and give and take places of sessions. KEYS: the life, the nodes. ARGV: highest generation seen, an
-- epoch for a new life, the caller's time (Unix seconds), the node, the prefix of places, the prefix of the minutes'
-- keys, then for each token: jti, nonce, time of issue (Unix seconds), place. Returns the generation, then for each
-- token: "1" used up now, "0" was used before, "l" it may have been used in an earlier life, "c" the clocks differ too
-- much, "f" the session is full, "o" it is full because of other nodes, "n" this call has read enough of full sessions,
-- the caller asks again. After "1" come the connections whose places were taken.
--
-- A place is "", or "most mode seconds connection session". The mode "r" replaces the oldest connection of a full session.
-- Connections of nodes that were not heard of for these seconds don't count. Without a nonce the place, as "connection
-- session", is given back.
--
-- A session is a hash: of a connection "o time until node", of one whose place was taken "x time until by". It is kept
-- until that node gives it back, so that it gets no place again and a repeated call gets the same answer.
--
-- The tokens of a minute are in one hash. A key of its own with a time to live for each token would be gone too early
-- if the server's clock were ahead for a moment. A hash is removed here, where the clocks are compared.
local KEPT_MINUTES, GONE_AFTER_MS = 3, 86400000
local KEPT, KEPT_MS = 900, 900000
local TO_READ = 1000  -- places of full sessions: a millisecond
local FIRST, STRIDE = 7, 4
local now = engine_time()
local differs = math.abs(now - tonumber(ARGV[3])) > 1
-- No life begins at a time that is wrong: tokens that were used before a loss would seem to be younger than it.
local g, since = ARGV[1], 0
if not differs then
  local _
  g, _, since = life(KEYS[1], ARGV[1], ARGV[2])
end
local minute = math.floor(now / 60)
local function of(number)
  return ARGV[6] .. int(number)
end
local function session_key(session)
  return ARGV[5] .. int(tonumber(g)) .. ':' .. session
end

local to_read = TO_READ
local function places_of(key)
  local all = redis.call('HGETALL', key)
  to_read = to_read - #all / 2
  return all
end

local nodes
local function is_heard(node, within)
  if node == ARGV[4] then return true end
  if not nodes then
    nodes = {}
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do nodes[all[i]] = tonumber(all[i + 1]) end
  end
  return nodes[node] ~= nil and math.abs(now - nodes[node]) <= within
end

-- Return what to write for a place, or nil and the answer. Nothing is written here. A session that is not full is not
-- read: it may have thousands of connections.
local function find(place)
  local most, mode, within, connection, session = string.match(place, '^(%d+) (%a) (%S+) (%S+) (.*)$')
  local found = {key = session_key(session), connection = connection, over = {}, replaced = {}}
  found.is_taken = redis.call('HEXISTS', found.key, connection) == 1
  if found.is_taken or redis.call('HLEN', found.key) < tonumber(most) then return found end
  local all, open, elsewhere = places_of(found.key), {}, false
  for i = 1, #all, 2 do
    local kind, at, till, by = string.match(all[i + 1], '^(%a) (%S+) (%S+) (%S+)$')
    if tonumber(till) < now then
      found.over[#found.over + 1] = all[i]
    elseif kind == 'o' and is_heard(by, tonumber(within)) then
      open[#open + 1] = {tonumber(at), all[i]}
      elsewhere = elsewhere or by ~= ARGV[4]
    end
  end
  local many = #open + 1 - tonumber(most)
  if many <= 0 then return found end
  if mode ~= 'r' then return nil, elsewhere and 'o' or 'f' end
  table.sort(open, function(one, other)
    if one[1] ~= other[1] then return one[1] < other[1] end
    return one[2] < other[2]
  end)
  for i = 1, many do found.replaced[#found.replaced + 1] = open[i][2] end
  return found
end

local order = 0
local function take(place)
  for _, connection in ipairs(place.over) do redis.call('HDEL', place.key, connection) end
  order = order + 1  -- the tokens of one call come one after the other
  local times = string.format('%.6f %.3f ', now + order / 1000000, now + KEPT)
  redis.call('HSET', place.key, place.connection, 'o ' .. times .. ARGV[4])
  for _, connection in ipairs(place.replaced) do
    redis.call('HSET', place.key, connection, 'x ' .. times .. place.connection)
  end
  redis.call('PEXPIRE', place.key, KEPT_MS)
end

-- Return the connections that a place has replaced.
local function replaced_by(place)
  local all, replaced = places_of(place.key), {}
  for i = 1, #all, 2 do
    if string.match(all[i + 1], '^x %S+ %S+ (%S+)$') == place.connection then replaced[#replaced + 1] = all[i] end
  end
  return replaced
end

local kept = {}
if not differs then
  if since > now + 1 then  -- the life began while the clock was ahead
    since = math.ceil(now)
    redis.call('HSET', KEYS[1], 'since', int(since))
  end
  -- One more than now: the clock may have gone back a little.
  for number = minute + 1, minute - KEPT_MINUTES, -1 do
    if number ~= minute and redis.call('EXISTS', of(number)) == 1 then kept[#kept + 1] = of(number) end
  end
end

local is_known
local function use(jti, nonce)
  is_known = true
  for _, key in ipairs(kept) do
    local used_by = redis.call('HGET', key, jti)
    if used_by then return used_by end
  end
  is_known = redis.call('HSETNX', of(minute), jti, nonce) == 0
  if not is_known then return nonce end
  return redis.call('HGET', of(minute), jti)
end

local is_new = not differs and #ARGV >= FIRST and redis.call('EXISTS', of(minute)) == 0
local answers = {int(tonumber(g))}
for i = FIRST, #ARGV, STRIDE do
  local answer, place
  if ARGV[i + 1] == '' then
    local connection, session = string.match(ARGV[i + 3], '^(%S+) (.*)$')
    redis.call('HDEL', session_key(session), connection)
    answer = '1'
  elseif differs then
    answer = 'c'
  elseif tonumber(ARGV[i + 2]) <= since + 2 then
    answer = 'l'
  elseif to_read <= 0 and ARGV[i + 3] ~= '' then
    answer = 'n'
  else
    if ARGV[i + 3] ~= '' then place, answer = find(ARGV[i + 3]) end
    if not answer then
      -- The caller's nonce tells a call that is repeated, because its reply was lost, from another use of the token.
      answer = use(ARGV[i], ARGV[i + 1]) == ARGV[i + 1] and '1' or '0'
      if answer == '1' and place then
        if not place.is_taken then
          take(place)
        elseif is_known then  -- the call is repeated
          place.replaced = replaced_by(place)
        end
        if #place.replaced > 0 then answer = '1 ' .. table.concat(place.replaced, ' ') end
      end
    end
  end
  answers[#answers + 1] = answer
end
if is_new then
  redis.call('PEXPIRE', of(minute), GONE_AFTER_MS)  -- if nobody comes any more
  for number = minute - KEPT_MINUTES - 10, minute - KEPT_MINUTES - 1 do redis.call('UNLINK', of(number)) end
end
return answers
