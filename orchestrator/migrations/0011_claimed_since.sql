-- Since when a purchase is claimed in vain: what ends its workers is told from what workers happen to die with.

ALTER TABLE orchestrator.purchase
    ADD COLUMN claimed_since timestamptz;                   -- the first of its claims since the last commit; NULL without
