//! The queue and its workers: order, leases, and workers that are lost.

use std::time::Duration;

use nix::sys::signal::Signal;
use ridgeline::queue::{self, Wanted};
use serde_json::{Value, json};

use crate::support::{Database, Service, Settings, example, long_job, wait_until};

fn wait_for_status(service: &Service, id: i64, status: &str) {
    wait_until(&format!("model {id} is {status}"), || service.model(id)["status"] == status);
}

#[test]
fn jobs_start_first_in_first_out() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let ids: Vec<i64> = (0..10).map(|_| service.submit(&example())).collect();
    let _worker = Settings::new(&database.url).worker();
    let started: Vec<Value> = ids.iter().map(|&id| service.ended(id)["started_at"].clone()).collect();
    assert!(started.is_sorted_by_key(|time| time.as_str().unwrap().to_owned()), "{started:?}");
    let by_start = database.value("SELECT array_agg(id ORDER BY started_at)::text FROM models");
    assert_eq!(by_start, format!("{{{}}}", ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")));
}

#[test]
fn several_workers_share_the_queue_and_train_each_job_once() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let ids: Vec<i64> = (0..60).map(|_| service.submit(&example())).collect();
    let workers: Vec<_> = (0..4).map(|_| Settings::new(&database.url).worker()).collect();
    for id in ids {
        let model = service.ended(id);
        assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(1)));
        let words = format!("model {id}: training starts");
        let starts = || workers.iter().map(|worker| worker.log().matches(&words).count()).sum::<usize>();
        wait_until("its worker has said so", || starts() > 0);
        assert_eq!(starts(), 1, "model {id}");
    }
}

#[test]
fn a_worker_keeps_a_result_and_takes_the_next_job_in_one_commit() {
    const JOBS: usize = 20;
    let database = Database::new();
    let service = Service::without_workers(&database);
    let ids: Vec<i64> = (0..JOBS).map(|_| service.submit(&example())).collect();
    database.record_changes();
    let _worker = Settings::new(&database.url).worker();
    for id in ids {
        assert_eq!(service.ended(id)["status"], "trained");
    }
    assert_eq!(database.value("SELECT count(*) FROM changes"), (2 * JOBS).to_string());
    // The first is only taken, and with the last result there is none to take.
    assert_eq!(database.value("SELECT count(DISTINCT xmin::text) FROM changes"), (JOBS + 1).to_string());
}

#[test]
fn a_job_that_was_taken_by_a_statement_whose_answer_was_lost_is_taken_again() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let ids = [0, 1].map(|_| service.submit(&example()));
    let take = |token| {
        let wanted = Wanted { done: None, lease: Some(Duration::from_secs(60)), token };
        queue::turn(&mut database.connect(), wanted).unwrap().next.map(|claimed| (claimed.job.id, claimed.job.attempt))
    };
    assert_eq!([1, 1, 2, 2, 3].map(take), [Some((1, 1)), Some((1, 1)), Some((2, 1)), Some((2, 1)), None]);
    assert_eq!(ids, [1, 2]);
}

#[test]
fn a_worker_holds_one_job_and_leaves_the_others_to_those_that_are_free() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let [first, long, withdrawn, last] =
        [example(), long_job(), example(), example()].map(|request| service.submit(&request));
    let mut worker = Settings::new(&database.url).worker();
    wait_for_status(&service, long, "training");
    let waiting = service.model(last);
    assert_eq!((&waiting["status"], &waiting["attempt"]), (&json!("queued"), &json!(0)), "{waiting}");
    service.post(&format!("/model/{withdrawn}/cancel"), &json!({})).ok(202);

    let _other = Settings::new(&database.url).worker();
    assert_eq!(service.ended(last)["attempt"], 1);
    assert_eq!(service.model(long)["status"], "training");
    worker.kill();
    // Only what it was training has cost an attempt.
    let ended = [first, long, withdrawn, last].map(|id| {
        let model = service.ended(id);
        (model["status"].clone(), model["attempt"].clone())
    });
    let expected = [("trained", 1), ("trained", 2), ("cancelled", 0), ("trained", 1)];
    assert_eq!(ended, expected.map(|(status, attempt)| (json!(status), json!(attempt))));
}

#[test]
fn a_worker_hears_of_a_new_job_at_once() {
    let database = Database::new();
    let service = Service::start(&database);
    // Each is queued just after the worker has looked in vain: by polling alone it would wait for nearly half a second.
    for _ in 0..10 {
        service.train(&example());
    }
    let quick = database.value("SELECT count(*) FROM models WHERE started_at - created_at < interval '0.25 s'");
    assert!(quick.parse::<u32>().unwrap() >= 6, "only {quick} of 10 were taken at once");
}

#[test]
fn a_job_whose_worker_is_killed_is_trained_by_the_next() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&long_job());
    let mut worker = Settings::new(&database.url).worker();
    wait_for_status(&service, id, "training");
    worker.kill();
    assert_eq!(service.model(id)["status"], "training");

    let next = Settings::new(&database.url).worker();
    let model = service.ended(id);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(2)), "{model}");
    next.expect_log(&format!("model {id}: its worker was lost in attempt 1, the model is now queued"));
}

#[test]
fn the_service_starts_a_killed_worker_again() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.submit(&long_job());
    wait_for_status(&service, id, "training");
    let [worker] = service.process.children()[..] else { panic!("there should be one worker") };
    nix::sys::signal::kill(worker, Signal::SIGKILL).unwrap();
    let model = service.ended(id);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(2)), "{model}");
}

#[test]
fn a_job_that_three_workers_were_lost_over_fails() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let [bad, good] = [service.submit(&long_job()), service.submit(&example())];
    for attempt in 1..=3 {
        let mut worker = Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 1).worker();
        wait_until("the job is taken", || {
            let model = service.model(bad);
            model["status"] == "training" && model["attempt"] == attempt
        });
        worker.kill();
    }
    let _worker = Settings::new(&database.url).worker();
    let model = service.ended(bad);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("failed"), &json!(3)), "{model}");
    assert!(model["error"].as_str().unwrap().starts_with("worker lost: 3 workers"), "{model}");
    assert_eq!(service.ended(good)["status"], "trained");
}

#[test]
fn a_worker_that_is_told_to_stop_hands_its_job_back() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let [id, waiting] = [service.submit(&long_job()), service.submit(&example())];
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut worker = Settings::new(&database.url).worker();
        wait_for_status(&service, id, "training");
        let start = std::time::Instant::now();
        worker.signal(signal);
        let status = worker.wait();
        assert!(status.success() && start.elapsed().as_secs() < 10, "{status} after {:?}", start.elapsed());
        for model in [id, waiting].map(|id| service.model(id)) {
            assert_eq!((&model["status"], &model["attempt"]), (&json!("queued"), &json!(0)), "{model}");
        }
    }
    let _worker = Settings::new(&database.url).worker();
    let model = service.ended(id);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(1)), "{model}");
}

#[test]
fn a_result_without_its_lease_is_dropped() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&long_job());
    let worker = Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 60).worker();
    wait_for_status(&service, id, "training");
    database.execute(&format!("UPDATE models SET lease_token = lease_token # 1 WHERE id = {id}"));
    worker.expect_log(&format!("model {id}: the lease was lost"));
    let model = service.model(id);
    assert_eq!((&model["status"], &model["model"]), (&json!("training"), &Value::Null), "{model}");
}
