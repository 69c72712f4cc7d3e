-- Gives what is known of a question, and the lead in it to whoever asks if something is missing and nobody has it.
--
-- KEYS[1]  hash of the answers: seller id -> packed answer, good until a time in ms
-- KEYS[2]  hash of the lead: owner; until, ms; followed = 1 once somebody was refused it
-- ARGV[1]  the time, ms since 1970; empty for the server's own, which is what production uses
-- ARGV[2]  who asks
-- ARGV[3]  how long a lead lasts, ms
-- ARGV[4]  an answer that is good for no more than this, ms, is given but counts as missing
-- ARGV[5]  the longest that any answer is good, ms: one that says more is of a clock that was wrong
-- ARGV[6]  channel to tell the leader that somebody follows; the message is who asks, a space, KEYS[1]
-- ARGV[7]  ids of the sellers wanted, one a line
--
-- Returns {1 if who asks leads, else 0; frames of the answers wanted that are still good, each with the ms left}.
-- aggregator/domain/packed.py says what a packed answer and a frame are.

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
local ahead, longest = tonumber(ARGV[4]), tonumber(ARGV[5])

local wanted, missing = {}, 0
for id in string.gmatch(ARGV[7], '[^\n]+') do
  wanted[id] = true
  missing = missing + 1
end

local frames = {}
local found = redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do
  local id, packed = found[i], found[i + 1]
  if wanted[id] then
    local left = struct.unpack('<d', packed) - now
    if left > 0 and left <= longest then
      frames[#frames + 1] = struct.pack('<BHc0d', #id, #packed, id, left)
      frames[#frames + 1] = string.sub(packed, 9)
      if left > ahead then
        missing = missing - 1
      end
    end
  end
end

local leading = 0
if missing > 0 then
  local lead = redis.call('HMGET', KEYS[2], 'owner', 'until', 'followed')
  if not lead[1] or lead[1] == ARGV[2] or tonumber(lead[2]) <= now then
    redis.call('HSET', KEYS[2], 'owner', ARGV[2], 'until', string.format('%.3f', now + ARGV[3]))
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
    leading = 1
  elseif not lead[3] then
    redis.call('HSET', KEYS[2], 'followed', 1)
    redis.call('PUBLISH', ARGV[6], ARGV[2] .. ' ' .. KEYS[1])
  end
end
return {leading, table.concat(frames)}
