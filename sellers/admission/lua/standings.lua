-- Says what is known of sellers. Of one that is not called nothing is kept, and what was kept once is forgotten.
--
-- KEYS, ARGV[1]  as in ledger.lua.
-- Returns        one string, for each seller <d I4 I4 I4 I4 I4 I4 I4 I4>: open_for_ms (-1: its breaker is closed), retry_ms,
--                calls_used, books_used, in_flight, judged, failed, quiet_ms (for how long nothing is granted), alone_ms (for
--                how long it wants to be left alone).

local now_ms, life, quiet_ms = open_ledger()
local standings = {}

-- Says whether an account says no more than one that was never opened.
local function is_blank(account)
    return account[OPENED] == 0 and account[HEAD_SECOND] == 0 and account[TAIL_SECOND] == 0
        and not account[FIRST_PENDING] and account.alone_until <= now_ms
end

for i = 2, #KEYS do
    local key = KEYS[i]
    local account = open_account(key, now_ms, life)
    if is_blank(account) then
        call('DEL', key)
    else
        save_account(key, account)
    end
    local open_for_ms, retry_ms = -1, 0
    if account[OPENED] > 0 then
        open_for_ms = now_ms - account[OPENED]
        retry_ms = math.max(account[RETRY] - now_ms, 0)
    end
    standings[i - 1] = struct.pack('<dI4I4I4I4I4I4I4I4', open_for_ms, retry_ms, account[CALLS_USED], account[BOOKS_USED],
        account[IN_FLIGHT], account[JUDGED], account[FAILED], quiet_ms, math.max(account.alone_until - now_ms, 0))
end
return table.concat(standings)
