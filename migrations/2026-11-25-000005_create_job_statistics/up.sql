-- What has become of the jobs since this table was made, for the metrics: how many, and how long they took. Counted where it
-- happens, by triggers, so that it holds for every process and for what is done by hand, and so that reading it takes no
-- look at the models, however many there are.
CREATE TABLE job_statistics (
    -- started: taken for the first time, with the time that it waited. trained, failed, cancelled: ended, with the time of the
    -- last attempt (0 if it never began). lost: a worker's lease ran out.
    event text NOT NULL CHECK (event IN ('started', 'trained', 'failed', 'cancelled', 'lost')),
    -- The buckets of a histogram: jobs that took at most so many seconds, and more than the next lower bound.
    at_most double precision NOT NULL,
    jobs bigint NOT NULL,
    seconds double precision NOT NULL,
    PRIMARY KEY (event, at_most)
) WITH (fillfactor = 50);

CREATE FUNCTION job_seconds(took interval) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(coalesce(extract(epoch FROM took), 0), 0)::double precision
$$;

CREATE FUNCTION job_bucket(seconds double precision) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
    SELECT min(bound)
    FROM unnest('{0.01,0.03,0.1,0.3,1,3,10,30,100,300,1000,3000,10000,30000,Infinity}'::double precision[]) AS bound
    WHERE seconds <= bound
$$;

-- Both write in the order of the keys, once for each statement: two statements never wait for each other.
CREATE FUNCTION count_updated_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_statistics AS counted (event, at_most, jobs, seconds)
    SELECT event, job_bucket(job_seconds(took)), count(*), sum(job_seconds(took))
    FROM (
        SELECT 'started' AS event, job.started_at - job.created_at AS took
        FROM updated_jobs AS job JOIN former_jobs AS former USING (id)
        WHERE former.status = 'queued' AND job.status = 'training' AND job.attempt = 1
        UNION ALL
        SELECT job.status, job.finished_at - job.started_at
        FROM updated_jobs AS job JOIN former_jobs AS former USING (id)
        WHERE former.status IN ('queued', 'training') AND job.status IN ('trained', 'failed', 'cancelled')
        UNION ALL
        -- A job that is handed back gives its attempt back as well.
        SELECT 'lost', interval '0'
        FROM updated_jobs AS job JOIN former_jobs AS former USING (id)
        WHERE former.status = 'training' AND (job.status = 'queued' AND job.attempt = former.attempt
            OR job.status = 'failed' AND former.lease_until < clock_timestamp())
    ) AS events
    GROUP BY 1, 2
    ORDER BY 1, 2
    ON CONFLICT (event, at_most) DO UPDATE
    SET jobs = counted.jobs + excluded.jobs, seconds = counted.seconds + excluded.seconds;
    RETURN NULL;
END
$$;

-- Who deletes a model that has not ended withdraws its job.
CREATE FUNCTION count_deleted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_statistics AS counted (event, at_most, jobs, seconds)
    SELECT 'cancelled', job_bucket(job_seconds(clock_timestamp() - started_at)), count(*),
        sum(job_seconds(clock_timestamp() - started_at))
    FROM former_jobs
    WHERE status IN ('queued', 'training')
    GROUP BY 1, 2
    ORDER BY 1, 2
    ON CONFLICT (event, at_most) DO UPDATE
    SET jobs = counted.jobs + excluded.jobs, seconds = counted.seconds + excluded.seconds;
    RETURN NULL;
END
$$;

CREATE TRIGGER models_count_updated AFTER UPDATE ON models
    REFERENCING OLD TABLE AS former_jobs NEW TABLE AS updated_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION count_updated_jobs();
CREATE TRIGGER models_count_deleted AFTER DELETE ON models
    REFERENCING OLD TABLE AS former_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_jobs();
