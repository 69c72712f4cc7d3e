-- Says for each call whether it may be made, and counts those that may. Atomic for all of them.
--
-- KEYS, ARGV[1]  as in ledger.lua; KEYS[i + 1] is the seller of request i.
-- ARGV[2]        the requests, one after the other, each <I4 I4 I4 I4 I4 B I4 B>: calls_cap, books, books_cap, concurrency,
--                hold_ms, past_breaker (0 or 1), reserve, reserved (0 or 1).
-- Returns        the verdicts as one string, each <B I4 I4 I4 I4 I4 I4>: code (0 allowed, 1 no budget, 2 concurrency,
--                3 circuit open, 4 warming up, 5 left alone), after_ms, calls_used, books_used, in_flight, ends_second, probe.

local ALLOWED, NO_BUDGET, CONCURRENCY, CIRCUIT_OPEN, WARMING_UP, LEFT_ALONE = 0, 1, 2, 3, 4, 5
local ENDED_CALLS, ENDED_BOOKS = 2, 3 -- places in the record of a second

local now_ms, life, quiet_ms = open_ledger()

-- Says in how many ms at least `need` of what is used is free again, at the earliest.
local function free_in(key, account, used, need, place)
    if need > used then return NEVER_MS end
    for index = account[HEAD], account[TAIL] - 1 do
        local ended = {cmsgpack.unpack(call('HGET', key, index))}
        need = need - ended[place]
        if need <= 0 then return free_ms(ended[1]) - now_ms end
    end
    if account[TAIL_SECOND] > 0 and need <= account[place == ENDED_CALLS and TAIL_CALLS or TAIL_BOOKS] then
        return free_ms(account[TAIL_SECOND]) - now_ms
    end
    return WINDOW_MS -- the rest has not even ended
end

-- Gives how many calls were granted out of a reserve in the window: none that counts no more.
local function reserved_used(account)
    local used = 0
    for index = 1, #account.reserved, 2 do
        if account.reserved[index] * RESERVED_MS + WINDOW_MS > now_ms then used = used + account.reserved[index + 1] end
    end
    return used
end

-- Counts a call as one out of a reserve.
local function reserve_one(key, account)
    local spans, span, kept = account.reserved, floor(now_ms / RESERVED_MS), {}
    for index = 1, #spans, 2 do
        if spans[index] * RESERVED_MS + WINDOW_MS > now_ms then
            table.insert(kept, spans[index])
            table.insert(kept, spans[index + 1])
        end
    end
    if kept[#kept - 1] == span then
        kept[#kept] = kept[#kept] + 1
    else
        table.insert(kept, span)
        table.insert(kept, 1)
    end
    account.reserved = kept
    call('HSET', key, 'r', cmsgpack.pack(unpack(kept)))
end

local function count(account, ends_second, books)
    local at = #account + 1
    while at > FIRST_PENDING and account[at - 3] > ends_second do at = at - 3 end
    if at > FIRST_PENDING and account[at - 3] == ends_second then
        account[at - 2] = account[at - 2] + 1
        account[at - 1] = account[at - 1] + books
    else
        table.insert(account, at, books)
        table.insert(account, at, 1)
        table.insert(account, at, ends_second)
    end
    account[IN_FLIGHT] = account[IN_FLIGHT] + 1
    account[CALLS_USED] = account[CALLS_USED] + 1
    account[BOOKS_USED] = account[BOOKS_USED] + books
end

-- Gives code, after_ms, calls that count, ends_second, probe.
local function decide(key, account, calls_cap, books, books_cap, concurrency, hold_ms, past_breaker, reserve, reserved)
    local is_open = account[OPENED] > 0
    local probe_ms = math.max(account[RETRY], account[PROBE_UNTIL]) - now_ms
    local calls, all_books = account[CALLS_USED], account[BOOKS_USED]
    if reserve > 0 then calls = calls - math.min(reserved_used(account), reserve, calls) end
    if is_open and probe_ms > 0 and past_breaker == 0 then return CIRCUIT_OPEN, probe_ms, calls, 0, 0 end
    if account.alone_until > now_ms and past_breaker == 0 then
        return LEFT_ALONE, account.alone_until - now_ms, calls, 0, 0
    end
    if quiet_ms > 0 then return WARMING_UP, quiet_ms, calls, 0, 0 end
    if calls + 1 > calls_cap then
        return NO_BUDGET, free_in(key, account, calls, calls + 1 - calls_cap, ENDED_CALLS), calls, 0, 0
    end
    if all_books + books > books_cap then
        return NO_BUDGET, free_in(key, account, all_books, all_books + books - books_cap, ENDED_BOOKS), calls, 0, 0
    end
    if account[IN_FLIGHT] + 1 > concurrency then return CONCURRENCY, 0, calls, 0, 0 end

    local ends_second = floor((now_ms + hold_ms) / SECOND_MS)
    count(account, ends_second, books)
    if reserved == 1 then reserve_one(key, account) end
    if is_open and probe_ms <= 0 then
        account[PROBE] = account[PROBE] + 1
        account[PROBE_UNTIL] = now_ms + hold_ms
        return ALLOWED, 0, calls + 1, ends_second, account[PROBE]
    end
    return ALLOWED, 0, calls + 1, ends_second, 0
end

local verdicts = {}
local at = 1
for i = 2, #KEYS do
    local key = KEYS[i]
    local calls_cap, books, books_cap, concurrency, hold_ms, past_breaker, reserve, reserved
    calls_cap, books, books_cap, concurrency, hold_ms, past_breaker, reserve, reserved, at =
        struct.unpack('<I4I4I4I4I4BI4B', ARGV[2], at)
    local account = open_account(key, now_ms, life)
    local code, after_ms, calls, ends_second, probe =
        decide(key, account, calls_cap, books, books_cap, concurrency, hold_ms, past_breaker, reserve, reserved)
    save_account(key, account)
    verdicts[i - 1] = struct.pack('<BI4I4I4I4I4I4', code, after_ms, calls, account[BOOKS_USED],
        account[IN_FLIGHT], ends_second, probe)
end
return table.concat(verdicts)
