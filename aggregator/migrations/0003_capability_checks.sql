-- When each seller was last asked what it can do.

ALTER TABLE aggregator.seller ADD COLUMN capabilities_checked_at timestamptz NOT NULL DEFAULT now();

CREATE INDEX seller_capabilities_checked ON aggregator.seller (capabilities_checked_at) WHERE state <> 'disabled';
