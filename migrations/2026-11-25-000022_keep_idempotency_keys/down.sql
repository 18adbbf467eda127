ALTER TABLE models DROP COLUMN idempotency_key, DROP COLUMN request_digest;
ALTER TABLE datasets DROP COLUMN idempotency_key, DROP COLUMN request_digest;
