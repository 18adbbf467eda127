DELETE FROM datasets WHERE arriving_until IS NOT NULL;
ALTER TABLE datasets DROP COLUMN arriving_until;
ALTER TABLE datasets ADD CONSTRAINT datasets_n_rows_check CHECK (n_rows > 0);
