-- Both write in the order of the keys, once for each statement: two statements never wait for each other.
CREATE OR REPLACE FUNCTION count_updated_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE FUNCTION count_deleted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
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

DROP FUNCTION count_jobs;
