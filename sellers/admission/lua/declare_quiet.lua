-- Takes the caller's word that no seller has been called for the warm-up: grants are made from now on, and whatever is
-- known of sellers is forgotten.
--
-- KEYS[1], ARGV[1]  as in ledger.lua.
-- Returns           nothing.

local now_ms = read_time()
begin(now_ms, now_ms - WARM_UP_MS - 1)
return nil
