-- Lists of a customer's purchases, the newest first, narrowed by status or book: however many purchases there are, a page
-- reads about as many rows as it shows.

CREATE INDEX purchase_listed ON orchestrator.purchase (customer_id, status, created_at DESC, request_id DESC);
CREATE INDEX purchase_of_book ON orchestrator.purchase (customer_id, book_id, created_at DESC, request_id DESC);
DROP INDEX orchestrator.purchase_of_customer;
