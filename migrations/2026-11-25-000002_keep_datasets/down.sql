-- The older schema cannot hold a model without its dataset.
DELETE FROM models WHERE dataset_id IS NULL;
ALTER TABLE models
    DROP CONSTRAINT models_dataset_until_ended,
    DROP CONSTRAINT models_dataset_id_fkey,
    ADD CONSTRAINT models_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES datasets (id),
    ALTER COLUMN dataset_id SET NOT NULL;
ALTER TABLE datasets DROP COLUMN name, DROP COLUMN is_standalone, DROP COLUMN statistics;
