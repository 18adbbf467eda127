-- The same in a language that keeps its plans: SQL made a new one for every change of a model, which took longer than the change.
CREATE OR REPLACE FUNCTION count_jobs(events text[], times interval[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_statistics AS counted (event, at_most, jobs, seconds)
    SELECT happened.event, job_bucket(job_seconds(took)), count(*), sum(job_seconds(took))
    FROM unnest(events, times) AS happened (event, took)
    GROUP BY 1, 2
    ORDER BY 1, 2
    ON CONFLICT (event, at_most) DO UPDATE
    SET jobs = counted.jobs + excluded.jobs, seconds = counted.seconds + excluded.seconds;
END
$$;
