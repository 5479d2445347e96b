-- Use up tokens. KEYS[1]: the life. ARGV: highest generation seen, an epoch for a new life, the prefix of the minutes'
-- keys, the caller's time (Unix seconds), then for each token: jti, nonce, time of issue (Unix seconds). Returns the
-- generation, then for each token: "1" used up now, "0" was used before, "l" it may have been used in an earlier life,
-- "c" the clocks differ too much.
--
-- The tokens of a minute are in one hash. A key of its own with a time to live for each token would be gone too early
-- if the server's clock were ahead for a moment. A hash is removed here, where the clocks are compared.
local KEPT_MINUTES, GONE_AFTER_MS = 3, 86400000
local now = engine_time()
local differs = math.abs(now - tonumber(ARGV[4])) > 1
-- No life begins at a time that is wrong: tokens that were used before a loss would seem to be younger than it.
local g, since = ARGV[1], 0
if not differs then
  local _
  g, _, since = life(KEYS[1], ARGV[1], ARGV[2])
end
local minute = math.floor(now / 60)
local function of(number)
  return ARGV[3] .. int(number)
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

local function use(jti, nonce)
  for _, key in ipairs(kept) do
    local used_by = redis.call('HGET', key, jti)
    if used_by then return used_by end
  end
  if redis.call('HSETNX', of(minute), jti, nonce) == 1 then return nonce end
  return redis.call('HGET', of(minute), jti)
end

local is_new = not differs and #ARGV > 4 and redis.call('EXISTS', of(minute)) == 0
local answers = {int(tonumber(g))}
for i = 5, #ARGV, 3 do
  local answer
  if differs then
    answer = 'c'
  elseif tonumber(ARGV[i + 2]) <= since + 2 then
    answer = 'l'
  else
    -- The caller's nonce tells a call that is repeated, because its reply was lost, from another use of the token.
    answer = use(ARGV[i], ARGV[i + 1]) == ARGV[i + 1] and '1' or '0'
  end
  answers[#answers + 1] = answer
end
if is_new then
  redis.call('PEXPIRE', of(minute), GONE_AFTER_MS)  -- if nobody comes any more
  for number = minute - KEPT_MINUTES - 10, minute - KEPT_MINUTES - 1 do redis.call('UNLINK', of(number)) end
end
return answers
