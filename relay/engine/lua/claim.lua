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
-- until that node gives it back, so that it gets no place again. Then come the connections whose places it took itself, so
-- that a repeated call gets the same answer.
--
-- The tokens of a minute are in one hash. A key of its own with a time to live for each token would be gone too early
-- if the server's clock were ahead for a moment. A hash is removed here, where the clocks are compared.
local KEPT_MINUTES, GONE_AFTER_MS = 3, 86400000
local KEPT, KEPT_MS = 900, 900000
local TO_READ = 1000  -- places of full sessions: a millisecond
local HEARD_WITHIN = 10  -- as in beat.lua
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
-- Return the places of a full session, or of a very large one a thousand, from where its hash has the token.
local function places_of(key, size, jti)
  local all
  if size <= TO_READ then
    all = redis.call('HGETALL', key)
  else
    local start = int(tonumber(string.sub(redis.sha1hex(jti), 1, 8), 16))
    local cursor, found = unpack(redis.call('HSCAN', key, start, 'COUNT', TO_READ))
    all = found
    if cursor == '0' then all = redis.call('HSCAN', key, 0, 'COUNT', TO_READ)[2] end  -- the end of the hash
  end
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
local function find(text, jti)
  local most, mode, within, connection, session = string.match(text, '^(%d+) (%a) (%S+) (%S+) (.*)$')
  local place = {key = session_key(session), connection = connection, over = {}, replaced = {}, took = {}}
  place.written = redis.call('HGET', place.key, connection)
  local size = redis.call('HLEN', place.key)
  if place.written or size < tonumber(most) then return place end
  local all, open, elsewhere = places_of(place.key, size, jti), {}, size > TO_READ
  for i = 1, #all, 2 do
    local kind, at, till, by, took = string.match(all[i + 1], '^(%a) (%S+) (%S+) (%S+)(.*)$')
    -- A node that comes back writes its places again.
    if tonumber(till) < now or (kind == 'o' and not is_heard(by, HEARD_WITHIN)) then
      place.over[#place.over + 1] = all[i]
    elseif kind == 'o' and is_heard(by, tonumber(within)) then
      open[#open + 1] = {tonumber(at), all[i], took}
      elsewhere = elsewhere or by ~= ARGV[4]
    end
  end
  local many = size - (#all / 2 - #open) + 1 - tonumber(most)
  if many <= 0 then return place end
  if size > TO_READ then many = 1 end  -- of those that were not read some may have been replaced
  if mode ~= 'r' then return nil, elsewhere and 'o' or 'f' end
  table.sort(open, function(one, other)
    if one[1] ~= other[1] then return one[1] < other[1] end
    return one[2] < other[2]
  end)
  for i = 1, math.min(many, #open) do
    place.replaced[i] = open[i][2]
    place.took[i] = open[i][3]
  end
  return place
end

local order = 0
local function take(place)
  if #place.over > 0 then redis.call('HDEL', place.key, unpack(place.over)) end
  order = order + 1  -- the tokens of one call come one after the other
  local times = string.format('%.6f %.3f ', now + order / 1000000, now + KEPT)
  local written = {place.connection, 'o ' .. times .. table.concat({ARGV[4], unpack(place.replaced)}, ' ')}
  for i, connection in ipairs(place.replaced) do
    written[#written + 1] = connection
    written[#written + 1] = 'x ' .. times .. place.connection .. place.took[i]
  end
  redis.call('HSET', place.key, unpack(written))
  redis.call('PEXPIRE', place.key, KEPT_MS)
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
    if ARGV[i + 3] ~= '' then place, answer = find(ARGV[i + 3], ARGV[i]) end
    if not answer then
      -- The caller's nonce tells a call that is repeated, because its reply was lost, from another use of the token.
      answer = use(ARGV[i], ARGV[i + 1]) == ARGV[i + 1] and '1' or '0'
      if answer == '1' and place then
        local replaced = table.concat(place.replaced, ' ')
        if not place.written then
          take(place)
        elseif is_known then  -- the call is repeated
          replaced = string.match(place.written, '^%a %S+ %S+ %S+ (.+)$') or ''
        end
        if replaced ~= '' then answer = '1 ' .. replaced end
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
