DROP INDEX datasets_name;
DROP INDEX models_status;
DROP INDEX models_name;
ALTER TABLE models DROP COLUMN tags;
