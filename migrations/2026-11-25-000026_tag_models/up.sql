-- Words by which clients find their models again: a JSON array of strings, each once.
ALTER TABLE models
    ADD COLUMN tags jsonb NOT NULL DEFAULT '[]'
        CHECK (jsonb_typeof(tags) = 'array' AND jsonb_array_length(tags) <= 20);

-- What lists are filtered by. Most models have neither a name nor tags: those take no room here. Of names the beginning is
-- enough, and a whole one of a thousand characters may be too long for an index.
CREATE INDEX models_name ON models (owner, left(name, 100), id) WHERE name IS NOT NULL;
CREATE INDEX models_tags ON models USING gin (tags jsonb_path_ops) WHERE tags <> '[]';
CREATE INDEX models_status ON models (owner, status, id);
CREATE INDEX datasets_name ON datasets (owner, left(name, 100), id) WHERE name IS NOT NULL;
