-- What we owe sellers.
-- $1 date: of one day (UTC); of all days when NULL
-- One row a day, seller and currency; amounts in minor units (cents).
SELECT day, seller_id, currency, orders, ordered_minor, taken_back, taken_back_minor, owed_minor
FROM orchestrator.payable
WHERE day = $1 OR $1::date IS NULL
ORDER BY day, seller_id, currency
