-- A seller that is new is asked at once what it can do.

ALTER TABLE aggregator.seller ALTER COLUMN capabilities_checked_at SET DEFAULT '-infinity';
