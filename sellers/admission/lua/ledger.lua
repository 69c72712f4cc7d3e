-- What the scripts beside this one share; it is put before each of them. It does what sellers/admission/ledger.py does:
-- the rules are explained there, and one suite of tests runs both.
--
-- KEYS[1]  hash, the ledger: run_id of the server that wrote it, life, born_ms, now_ms. A server that was started again
--          may have lost the last minute, whatever it loaded: it begins a new life, which knows nothing of before
--          born_ms, and takes no account of another life for one.
-- KEYS[2…] hash for each seller. Field `s` is its account (MessagePack, the numbers named below). Of the seconds in
--          which calls ended, the last is in the account, the others are in the fields HEAD … TAIL - 1, each
--          (second, calls, books, judged, failed). Field `a`: until when (ms) the seller wants to be left alone, if it
--          has ever asked for that. Field `r`: calls granted out of a reserve (MessagePack, a list of: number of a span of
--          RESERVED_MS, calls), if there was ever one. They need no TTL: an idle seller's hash is small, and Valkey must not
--          drop one that it needs (maxmemory-policy: noeviction or volatile-*).
-- ARGV[1]  <d I4 I4 I4 I4 I4>: the time in ms, 0 for the server's own (anything else is for tests); window_ms;
--          warm_up_ms; breaker_calls; breaker_failure_percent; breaker_open_ms.
-- Needs the commands INFO and TIME.

local given_ms, WINDOW_MS, WARM_UP_MS, BREAKER_CALLS, BREAKER_FAILURE_PERCENT, BREAKER_OPEN_MS =
    struct.unpack('<dI4I4I4I4I4', ARGV[1])

local SECOND_MS = 1000
local RESERVED_MS = 5000
local NEVER_MS = 4294967295
local SUCCESS, FAILURE, NOT_SENT, LEAVE_ALONE, EXCUSED = 1, 2, 3, 4, 5

-- The account of a seller. Times in ms, 0 for none. FIRST_PENDING begins a list of (second, calls, books).
local LIFE = 1
local IN_FLIGHT, CALLS_USED, BOOKS_USED, JUDGED, FAILED = 2, 3, 4, 5, 6
local OPENED, RETRY, PROBE_UNTIL, PROBE = 7, 8, 9, 10
local JUDGED_FROM = 11 -- what was judged before this bucket is forgiven
local HEAD, HEAD_SECOND = 12, 13 -- the oldest second, 0 when there is none
local TAIL, TAIL_SECOND, TAIL_CALLS, TAIL_BOOKS, TAIL_JUDGED, TAIL_FAILED = 14, 15, 16, 17, 18, 19
local FIRST_PENDING = 20

local floor = math.floor
local call = redis.call

local function read_time()
    if given_ms > 0 then return given_ms end
    local time = call('TIME')
    return time[1] * 1000 + floor(time[2] / 1000)
end

local function server()
    return string.match(call('INFO', 'server'), 'run_id:(%x+)')
end

-- Begins a new life and gives its number.
local function begin(now_ms, born_ms)
    call('HSET', KEYS[1], 'run_id', server(), 'born_ms', born_ms, 'now_ms', now_ms)
    return call('HINCRBY', KEYS[1], 'life', 1)
end

-- Gives the time, which never goes back; the life; and for how long nothing is to be granted yet.
local function open_ledger()
    local now_ms = read_time()
    local known = call('HMGET', KEYS[1], 'run_id', 'life', 'born_ms', 'now_ms')
    local life, born_ms, seen_ms = tonumber(known[2]), tonumber(known[3]), tonumber(known[4])
    if known[1] ~= server() or seen_ms - now_ms > WARM_UP_MS then
        life, born_ms = begin(now_ms, now_ms), now_ms
    elseif now_ms > seen_ms then
        call('HSET', KEYS[1], 'now_ms', now_ms)
    else
        now_ms = seen_ms
    end
    return now_ms, life, math.max(born_ms + WARM_UP_MS + 1 - now_ms, 0)
end

-- Makes `second` the last one in which something ended.
local function turn_to(key, account, second)
    if account[TAIL_SECOND] == second then return end
    if account[TAIL_SECOND] > 0 then
        call('HSET', key, account[TAIL], cmsgpack.pack(account[TAIL_SECOND], account[TAIL_CALLS],
            account[TAIL_BOOKS], account[TAIL_JUDGED], account[TAIL_FAILED]))
        account[TAIL] = account[TAIL] + 1
    else
        account[HEAD_SECOND] = second
    end
    account[TAIL_SECOND] = second
    account[TAIL_CALLS], account[TAIL_BOOKS], account[TAIL_JUDGED], account[TAIL_FAILED] = 0, 0, 0, 0
end

-- Forgets the oldest second.
local function drop_head(key, account)
    local calls, books, judged, failed, _
    local head = account[HEAD]
    if head == account[TAIL] then
        calls, books = account[TAIL_CALLS], account[TAIL_BOOKS]
        judged, failed = account[TAIL_JUDGED], account[TAIL_FAILED]
        account[TAIL_SECOND], account[HEAD_SECOND] = 0, 0
        account[TAIL] = account[TAIL] + 1
    else
        local ended = call('HMGET', key, head, head + 1)
        _, calls, books, judged, failed = cmsgpack.unpack(ended[1])
        account[HEAD_SECOND] = ended[2] and (cmsgpack.unpack(ended[2])) or account[TAIL_SECOND]
        call('HDEL', key, head)
    end
    account[HEAD] = head + 1
    account[CALLS_USED] = account[CALLS_USED] - calls
    account[BOOKS_USED] = account[BOOKS_USED] - books
    if head >= account[JUDGED_FROM] then
        account[JUDGED] = account[JUDGED] - judged
        account[FAILED] = account[FAILED] - failed
    end
end

local function free_ms(second)
    return (second + 1) * SECOND_MS + WINDOW_MS
end

-- Gives a seller's account as of now: calls whose time is over have ended, those out of the window are forgotten.
local function open_account(key, now_ms, life)
    local known = call('HMGET', key, 's', 'a', 'r')
    local account = {cmsgpack.unpack(known[1] or '')}
    if account[LIFE] ~= life then
        call('DEL', key)
        account = {life, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
        account.alone_until = 0
        account.reserved = {}
        return account
    end
    account.alone_until = tonumber(known[2]) or 0
    account.reserved = {cmsgpack.unpack(known[3] or '')}
    local second = floor(now_ms / SECOND_MS)
    while account[FIRST_PENDING] and account[FIRST_PENDING] < second do
        local over = table.remove(account, FIRST_PENDING)
        local calls = table.remove(account, FIRST_PENDING)
        local books = table.remove(account, FIRST_PENDING)
        if calls > 0 then
            turn_to(key, account, over)
            account[TAIL_CALLS] = account[TAIL_CALLS] + calls
            account[TAIL_BOOKS] = account[TAIL_BOOKS] + books
            account[IN_FLIGHT] = account[IN_FLIGHT] - calls
        end
    end
    while account[HEAD_SECOND] > 0 and free_ms(account[HEAD_SECOND]) <= now_ms do
        drop_head(key, account)
    end
    return account
end

local function save_account(key, account)
    call('HSET', key, 's', cmsgpack.pack(unpack(account)))
end
