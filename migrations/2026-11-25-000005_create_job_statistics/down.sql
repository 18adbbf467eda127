DROP TRIGGER models_count_deleted ON models;
DROP TRIGGER models_count_updated ON models;
DROP FUNCTION count_deleted_jobs();
DROP FUNCTION count_updated_jobs();
DROP FUNCTION job_bucket(double precision);
DROP FUNCTION job_seconds(interval);
DROP TABLE job_statistics;
