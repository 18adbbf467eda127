-- A dataset that is larger than is held in memory is stored while it arrives. Until it is complete nobody sees it, and it is
-- dropped when the process that receives it has not been heard of since this time; null: it is complete.
ALTER TABLE datasets ADD COLUMN arriving_until timestamptz;

-- How many rows it has is known at last.
ALTER TABLE datasets DROP CONSTRAINT datasets_n_rows_check;
ALTER TABLE datasets ADD CONSTRAINT datasets_n_rows_check
    CHECK (n_rows > 0 OR (n_rows = 0 AND arriving_until IS NOT NULL));

CREATE INDEX datasets_arriving ON datasets (arriving_until) WHERE arriving_until IS NOT NULL;
