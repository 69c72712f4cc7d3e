-- Keeps answers to a question, renews or ends the lead in it, and wakes those who follow, if there are any.
--
-- KEYS[1]  hash of the answers: seller id -> packed answer, good until a time in ms
-- KEYS[2]  hash of the lead: owner; until, ms; followed = 1 once somebody was refused it
-- ARGV[1]  the time, ms since 1970; empty for the server's own, which is what production uses
-- ARGV[2]  who puts
-- ARGV[3]  how long a lead lasts, ms
-- ARGV[4]  what to do with the lead: 'renew' (take it again if it is free), 'end' (if one's own), or empty
-- ARGV[5]  channel to wake those who follow; the message is who puts, a space, KEYS[1]
-- ARGV[6]  frames of the answers, each with the ms for which it is good
--
-- Returns 1 if somebody follows, else 0.
-- aggregator/domain/packed.py says what a packed answer and a frame are.

local AT_ONCE = 2000 -- values in one HSET: Lua's stack takes some 8000
local NO = 100       -- tags above this one are no answers of the seller

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end

local frames, at = ARGV[6], 1
local values, longest = {}, 0
while at <= #frames do
  local id_length, length, start = struct.unpack('<BH', frames, at)
  local id = string.sub(frames, start, start + id_length - 1)
  start = start + id_length
  local good_for = struct.unpack('<d', frames, start)
  at = start + length

  local keep = true
  if string.byte(frames, start + 8) > NO then
    local known = redis.call('HGET', KEYS[1], id)
    keep = not known or struct.unpack('<d', known) <= now + good_for
  end
  if keep then
    values[#values + 1] = id
    values[#values + 1] = struct.pack('<d', now + good_for) .. string.sub(frames, start + 8, at - 1)
    longest = math.max(longest, good_for)
    if #values == AT_ONCE then
      redis.call('HSET', KEYS[1], unpack(values))
      values = {}
    end
  end
end
if #values > 0 then
  redis.call('HSET', KEYS[1], unpack(values))
end
if longest > 0 and redis.call('PTTL', KEYS[1]) < longest then
  redis.call('PEXPIRE', KEYS[1], math.ceil(longest))
end

local lead = redis.call('HMGET', KEYS[2], 'owner', 'until', 'followed')
local free = not lead[1] or tonumber(lead[2]) <= now
local ended = false
if ARGV[4] == 'renew' and (free or lead[1] == ARGV[2]) then
  redis.call('HSET', KEYS[2], 'owner', ARGV[2], 'until', string.format('%.3f', now + ARGV[3]))
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
elseif ARGV[4] == 'end' and lead[1] == ARGV[2] then
  redis.call('DEL', KEYS[2])
  ended = true
end
if lead[3] and (#frames > 0 or ended) then
  redis.call('PUBLISH', ARGV[5], ARGV[2] .. ' ' .. KEYS[1])
end
return lead[3] and 1 or 0
