-- What the roles of Ridgeline need in a PostgreSQL database of your own, and no more.
--
-- Run it as the owner of the schema, after `ridgeline migrate` and again after an upgrade that brought migrations. Three
-- roles share the work: the owner, which alone changes the schema and makes API keys; ridgeline_api, for `ridgeline
-- serve` with workers = 0; and ridgeline_worker, for `ridgeline worker`. Make the two first:
--
--     CREATE ROLE ridgeline_api LOGIN PASSWORD '..';
--     CREATE ROLE ridgeline_worker LOGIN PASSWORD '..';
--
-- Where the server's messages are not in English, a superuser has these roles see them so:
--
--     ALTER ROLE ridgeline_api SET lc_messages = 'C';
--     ALTER ROLE ridgeline_worker SET lc_messages = 'C';

-- PostgreSQL before 15 lets everybody make tables here.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO ridgeline_api, ridgeline_worker;

-- Both look whether the migrations are current, and count what becomes of the jobs.
GRANT SELECT ON __diesel_schema_migrations TO ridgeline_api, ridgeline_worker;
GRANT SELECT, INSERT, UPDATE ON job_statistics TO ridgeline_api, ridgeline_worker;

-- The API stores and deletes, reads keys and notes their use; it makes none.
GRANT SELECT, INSERT, UPDATE, DELETE ON models, datasets TO ridgeline_api;
GRANT SELECT, INSERT, DELETE ON dataset_chunks, dataset_pages TO ridgeline_api;
GRANT SELECT, UPDATE (last_used_at) ON api_keys TO ridgeline_api;

-- A worker reads rows, and writes how far a job is and what came out. It sees neither keys nor owners nor names, makes no
-- model and deletes none.
GRANT SELECT (id, column_names, n_rows) ON datasets TO ridgeline_worker;
GRANT SELECT (dataset_id, position, cells, others, n_pages) ON dataset_chunks TO ridgeline_worker;
GRANT SELECT ON dataset_pages TO ridgeline_worker;
GRANT
    SELECT (id, dataset_id, params, status, attempt, started_at, lease_token, lease_until),
    UPDATE (status, attempt, started_at, finished_at, lease_token, lease_until, progress,
        model, cv_results, best, metrics, warnings, error)
    ON models TO ridgeline_worker;
