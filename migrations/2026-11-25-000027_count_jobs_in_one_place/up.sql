-- Counts what happened to jobs: what, and the time that goes with it, side by side. It writes in the order of the keys, once for
-- each statement: two statements never wait for each other.
CREATE FUNCTION count_jobs(events text[], times interval[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO job_statistics AS counted (event, at_most, jobs, seconds)
    SELECT event, job_bucket(job_seconds(took)), count(*), sum(job_seconds(took))
    FROM unnest(events, times) AS happened (event, took)
    GROUP BY 1, 2
    ORDER BY 1, 2
    ON CONFLICT (event, at_most) DO UPDATE
    SET jobs = counted.jobs + excluded.jobs, seconds = counted.seconds + excluded.seconds
$$;

CREATE OR REPLACE FUNCTION count_updated_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM count_jobs(array_agg(event), array_agg(took))
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
    ) AS events;
    RETURN NULL;
END
$$;

-- Who deletes a model that has not ended withdraws its job.
CREATE OR REPLACE FUNCTION count_deleted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM count_jobs(array_agg('cancelled'::text), array_agg(clock_timestamp() - started_at))
    FROM former_jobs
    WHERE status IN ('queued', 'training');
    RETURN NULL;
END
$$;
