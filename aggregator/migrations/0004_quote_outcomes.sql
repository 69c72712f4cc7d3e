-- Two more reasons why a seller was not asked.

INSERT INTO aggregator.quote_outcome (letter, condition, available, error) VALUES
    ('Y', null, null, 'busy'),
    ('K', null, null, 'no_credential');
