//! What becomes of jobs when workers are killed, frozen, crash or run out of memory: nothing but their own process ends.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::support::{Database, Service, Settings, example, generated_csv, long_job, wait_until, with};

/// Seconds that every test here gives a worker to be heard of again, unless it says otherwise.
const LEASE: f64 = 2.0;

/// A job that takes some 400 MB to train.
fn large_job() -> Value {
    let header: Vec<String> = (0..2_000).map(|i| format!("x{i}")).collect();
    let row =
        |i: usize| (0..=2_000).map(|j| ((i * i * 31 + j * 17 + i * j) % 10).to_string()).collect::<Vec<_>>().join(",");
    let rows: Vec<String> = (0..2_100).map(row).collect();
    json!({"data": format!("y,{}\n{}\n", header.join(","), rows.join("\n")), "target": "y", "n_folds": 5, "l2_coef": [1.0]})
}

fn wait_for_attempt(service: &Service, id: i64, attempt: u32) {
    wait_until(&format!("attempt {attempt} of model {id} has begun"), || {
        let model = service.model(id);
        model["status"] == "training" && model["attempt"] == attempt
    });
}

#[test]
fn the_job_of_a_killed_worker_ends_within_the_lease_and_five_seconds() {
    let database = Database::new();
    database.record_changes();
    let service = Service::without_workers(&database);
    let id = service.submit(&with(long_job(), json!({"data": generated_csv(1_200, 200)})));
    let mut worker = Settings::new(&database.url).worker();
    wait_for_attempt(&service, id, 1);
    worker.kill();
    let killed_at = database.value("SELECT clock_timestamp()");
    let other = Settings::new(&database.url).worker();

    let model = service.ended(id);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(2)), "{model}");
    assert_eq!(database.times(id, "trained"), "1");
    let took = database.value(&format!("SELECT extract(epoch FROM finished_at - '{killed_at}') FROM models"));
    assert!(took.parse::<f64>().unwrap() < LEASE + 5.0, "{took} s\n{}", other.log());
}

#[test]
fn the_late_result_of_a_frozen_worker_is_dropped() {
    let database = Database::new();
    database.record_changes();
    let service = Service::without_workers(&database);
    let id = service.submit(&long_job());
    let frozen = Settings::new(&database.url).worker();
    wait_for_attempt(&service, id, 1);

    frozen.signal(Signal::SIGSTOP);
    let _other = Settings::new(&database.url).worker();
    let model = service.ended(id);
    frozen.signal(Signal::SIGCONT);

    frozen.expect_log(&format!("model {id}: the lease was lost"));
    assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(2)), "{model}");
    assert_eq!(service.model(id), model);
    assert_eq!(database.times(id, "trained"), "1");
    assert!(!frozen.log().contains(&format!("model {id}: trained")), "{}", frozen.log());
}

#[test]
fn a_job_that_crashes_its_workers_fails_and_the_queue_goes_on() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 1).serve();
    let [bad, good] = [service.submit(&long_job()), service.submit(&example())];
    for attempt in 1..=3 {
        wait_for_attempt(&service, bad, attempt);
        let [worker] = service.process.children()[..] else { panic!("there should be one worker") };
        kill(worker, Signal::SIGABRT).unwrap();
    }
    let model = service.ended(bad);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("failed"), &json!(3)), "{model}");
    let error = model["error"].as_str().unwrap();
    assert!(error.starts_with("worker lost: 3 workers") && error.contains("memory"), "{error}");
    assert_eq!(service.ended(good)["status"], "trained");
    // Each pause before the next worker is twice as long.
    for pause in ["200ms", "400ms", "800ms"] {
        service.process.expect_log(&format!("it is started again in {pause}"));
    }
}

#[test]
fn a_job_that_takes_more_memory_than_a_worker_may_fails_at_once() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let [large, small] = [service.submit(&large_job()), service.submit(&example())];
    let mut worker = Settings::new(&database.url).set("ROCKET_WORKER_MEMORY", "64 MiB").worker();
    let model = service.ended(large);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("failed"), &json!(1)), "{model}");
    let error = "training needs more memory than a worker may take, which is 64MiB (worker_memory)";
    assert_eq!(model["error"], error);
    assert_eq!(worker.wait().signal(), Some(Signal::SIGKILL as i32));
    let _worker = Settings::new(&database.url).worker();
    assert_eq!(service.ended(small)["status"], "trained");

    // A service with the same limit does not even take it.
    let limited = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_WORKER_MEMORY", "64 MiB").serve();
    let error = limited.post("/train", &large_job()).error(422);
    assert!(
        error.contains("of 2001 columns with 5 folds takes at least 0.") && error.contains("may take 0.06 GiB"),
        "{error}"
    );
}

#[test]
fn a_job_that_exhausts_the_memory_of_its_workers_fails_and_the_queue_goes_on() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let settings = || Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 1);
    let mut idle = settings().worker();
    let room = idle.memory("VmPeak") + 150_000;
    idle.stop();

    let [large, small] = [service.submit(&large_job()), service.submit(&example())];
    for attempt in 1..=3 {
        let mut worker = settings().worker_within(room);
        wait_until("the job is taken", || service.model(large)["attempt"] == attempt);
        let status = worker.wait();
        assert!(!status.success(), "{status}");
    }
    let _worker = settings().worker_within(room);
    let model = service.ended(large);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("failed"), &json!(3)), "{model}");
    assert!(model["error"].as_str().unwrap().starts_with("worker lost: 3 workers"), "{model}");
    assert_eq!(service.ended(small)["status"], "trained");
}

#[test]
fn workers_offer_themselves_when_the_machine_runs_out_of_memory() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let worker = Settings::new(&database.url).worker();
    let score = |id: u32| std::fs::read_to_string(format!("/proc/{id}/oom_score_adj")).unwrap();
    assert_eq!(score(worker.id()).trim(), "1000");
    assert_eq!(score(service.process.id()), score(std::process::id()));
}

#[test]
fn rows_that_cannot_be_read_fail_their_job_at_once() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&example());
    database.execute("DELETE FROM dataset_chunks");
    let worker = Settings::new(&database.url).worker();
    let model = service.ended(id);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("failed"), &json!(1)), "{model}");
    assert_eq!(model["error"], "the rows cannot be read; the worker's log has the cause");
    worker.expect_log("the rows cannot be read: a database query failed: the chunks of a dataset do not fill its rows");
}

#[test]
fn a_result_that_the_database_refuses_fails_its_job_at_once() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&json!({"data": generated_csv(50, 2), "target": "y"}));
    database.execute("ALTER TABLE models ADD CONSTRAINT no_results CHECK (model IS NULL)");
    let worker = Settings::new(&database.url).worker();
    let model = service.ended(id);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("failed"), &json!(1)), "{model}");
    assert_eq!(model["error"], "the result cannot be stored; the worker's log has the cause");
    worker.expect_log(&format!("model {id}: failed after"));
    let log = worker.log();
    assert!(log.contains("no_results") && !log.contains("trained in"), "{log}");
}
