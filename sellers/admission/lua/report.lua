-- Takes note of calls that have ended. Not to be repeated: each call may be reported once.
--
-- KEYS, ARGV[1]  as in ledger.lua; KEYS[i + 1] is the seller of report i.
-- ARGV[2]        the reports, one after the other, each <I4 I4 I4 B I4>: ends_second as granted (0: the call was granted
--                elsewhere, or ends with its time), books and probe as granted, ending (1 success, 2 failure, 3 not
--                sent, 4 nothing of a call: the seller wants to be left alone, 5 excused: it has ended, and says
--                nothing of the seller), alone_ms for how long.
-- Returns        nothing.

local now_ms, life = open_ledger()
local this_second = floor(now_ms / SECOND_MS)

-- Lets a call end now, or never have been, unless its time is over already.
local function end_call(key, account, ends_second, books, ending)
    local at = FIRST_PENDING
    while account[at] and account[at] ~= ends_second do at = at + 3 end
    if not account[at] or account[at + 1] == 0 then return end
    account[at + 1] = account[at + 1] - 1
    account[at + 2] = account[at + 2] - books
    account[IN_FLIGHT] = account[IN_FLIGHT] - 1
    if ending == NOT_SENT then
        account[CALLS_USED] = account[CALLS_USED] - 1
        account[BOOKS_USED] = account[BOOKS_USED] - books
    else
        turn_to(key, account, this_second)
        account[TAIL_CALLS] = account[TAIL_CALLS] + 1
        account[TAIL_BOOKS] = account[TAIL_BOOKS] + books
    end
end

local function judge(key, account, failed)
    turn_to(key, account, this_second)
    account[TAIL_JUDGED] = account[TAIL_JUDGED] + 1
    account[TAIL_FAILED] = account[TAIL_FAILED] + failed
    account[JUDGED] = account[JUDGED] + 1
    account[FAILED] = account[FAILED] + failed
end

-- Opens or closes the breaker as a report demands.
local function turn_breaker(account, probe, ending)
    if account[OPENED] == 0 then
        if account[JUDGED] >= BREAKER_CALLS and account[FAILED] * 100 >= BREAKER_FAILURE_PERCENT * account[JUDGED] then
            account[OPENED] = now_ms
            account[RETRY] = now_ms + BREAKER_OPEN_MS
            account[PROBE_UNTIL] = 0
        end
    elseif probe > 0 and probe == account[PROBE] then
        account[PROBE_UNTIL] = 0
        if ending == FAILURE then
            account[RETRY] = now_ms + BREAKER_OPEN_MS
        elseif ending == SUCCESS then
            account[OPENED] = 0
            account[JUDGED], account[FAILED] = 0, 0
            account[JUDGED_FROM] = account[TAIL]
            account[TAIL_JUDGED], account[TAIL_FAILED] = 0, 0
        end
    end
end

local at = 1
for i = 2, #KEYS do
    local key = KEYS[i]
    local ends_second, books, probe, ending, alone_ms
    ends_second, books, probe, ending, alone_ms, at = struct.unpack('<I4I4I4BI4', ARGV[2], at)
    local account = open_account(key, now_ms, life)
    if ending == LEAVE_ALONE then
        call('HSET', key, 'a', math.max(account.alone_until, now_ms + alone_ms))
    else
        if ends_second > 0 then end_call(key, account, ends_second, books, ending) end
        if ending ~= NOT_SENT and ending ~= EXCUSED then judge(key, account, ending == FAILURE and 1 or 0) end
        turn_breaker(account, probe, ending)
    end
    save_account(key, account)
end
return nil
