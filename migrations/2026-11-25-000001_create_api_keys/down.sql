ALTER TABLE models DROP COLUMN owner;
ALTER TABLE datasets DROP COLUMN owner;
DROP TABLE api_keys;
