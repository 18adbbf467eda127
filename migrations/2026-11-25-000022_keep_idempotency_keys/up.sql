-- A client that does not know whether its request has arrived sends it again with the same Idempotency-Key, and gets what the
-- first one made. The key goes with what it made: after that it is free again.
ALTER TABLE models
    ADD COLUMN idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    -- SHA-256 of what was asked for, by which the same request is told from another.
    ADD COLUMN request_digest bytea CHECK (octet_length(request_digest) = 32),
    ADD CONSTRAINT models_digest_of_key CHECK ((idempotency_key IS NULL) = (request_digest IS NULL));
ALTER TABLE datasets
    ADD COLUMN idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    ADD COLUMN request_digest bytea CHECK (octet_length(request_digest) = 32),
    ADD CONSTRAINT datasets_digest_of_key CHECK ((idempotency_key IS NULL) = (request_digest IS NULL));

-- Each owner has keys of its own. No API key has the number 0: it stands for what was made while there were none.
CREATE UNIQUE INDEX models_idempotency_key ON models (coalesce(owner, 0), idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX datasets_idempotency_key ON datasets (coalesce(owner, 0), idempotency_key)
    WHERE idempotency_key IS NOT NULL;
