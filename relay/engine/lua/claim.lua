-- Use up tokens. KEYS[1]: the life. ARGV: highest generation seen, an epoch for a new life, the prefix of the claims'
-- keys, the caller's time (Unix seconds), then for each token: jti, nonce, milliseconds for which to keep the claim,
-- time of issue (Unix seconds). Returns the generation, then for each token: "1" used up now, "0" was used before,
-- "l" it may have been used in an earlier life, "c" the clocks differ too much.
local g, _, since = life(KEYS[1], ARGV[1], ARGV[2])
local answers = {int(g)}
local differs = math.abs(engine_time() - tonumber(ARGV[4])) > 1
for i = 5, #ARGV, 4 do
  local answer
  if differs then
    answer = 'c'
  elseif tonumber(ARGV[i + 3]) <= since + 2 then
    answer = 'l'
  else
    -- The caller's nonce tells a call that is repeated, because its reply was lost, from another use of the token.
    local used_by = redis.call('SET', ARGV[3] .. ARGV[i], ARGV[i + 1], 'NX', 'GET', 'PX', ARGV[i + 2])
    answer = (not used_by or used_by == ARGV[i + 1]) and '1' or '0'
  end
  answers[#answers + 1] = answer
end
return answers
