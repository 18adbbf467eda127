-- A dataset may also be posted on its own, and any number of models be trained on it.
ALTER TABLE datasets
    ADD COLUMN name text,
    -- Posted on its own: it stays until it is deleted. Otherwise it came with a training, and goes with the last model that
    -- was trained on it.
    ADD COLUMN is_standalone boolean NOT NULL DEFAULT false,
    -- Of each column, in order: [{"count": n, "min": .., "max": .., "mean": .., "std": ..}, ..], std the population's. Null in
    -- datasets that are older than this column, until somebody asks.
    ADD COLUMN statistics jsonb
        CHECK (jsonb_typeof(statistics) = 'array'
            AND jsonb_array_length(statistics) = jsonb_array_length(column_names));

-- A model that has ended does not need its dataset any more, and survives it.
ALTER TABLE models
    ALTER COLUMN dataset_id DROP NOT NULL,
    DROP CONSTRAINT models_dataset_id_fkey,
    ADD CONSTRAINT models_dataset_id_fkey FOREIGN KEY (dataset_id) REFERENCES datasets (id) ON DELETE SET NULL,
    ADD CONSTRAINT models_dataset_until_ended
        CHECK (status NOT IN ('queued', 'training') OR dataset_id IS NOT NULL);
