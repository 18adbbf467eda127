//! Many at once: workers at one queue, services at one database.

use std::thread;

use diesel::connection::SimpleConnection;
use serde_json::json;

use crate::support::{Database, Service, Settings, example, wait_until};

#[test]
fn eight_workers_train_a_thousand_jobs_once_each_in_order() {
    const WORKERS: usize = 8;
    const JOBS: usize = 1_000;
    let database = Database::new();
    database.record_changes();
    let service = Service::without_workers(&database);
    let dataset = service.post("/datasets", &json!({"data": example()["data"]})).ok(201)["dataset_id"].clone();
    let request = json!({"dataset_id": dataset, "target": "a", "n_folds": 4, "l2_coef": [1.0]});
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..JOBS / 4).for_each(|_| _ = service.submit(&request)));
        }
    });

    // Nobody takes a job before all are there.
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE models IN SHARE MODE").unwrap();
    let workers: Vec<_> = (0..WORKERS).map(|_| Settings::new(&database.url).worker()).collect();
    blocker.batch_execute("COMMIT").unwrap();
    wait_until("all jobs have ended", || {
        database.value("SELECT count(*) FROM models WHERE status IN ('queued', 'training')") == "0"
    });

    let once = "SELECT count(*) FROM (SELECT FROM changes GROUP BY model_id HAVING
                string_agg(old || ' ' || new || ' ' || attempt, ', ' ORDER BY at) =
                'queued training 1, training trained 1') AS model";
    assert_eq!(database.value(once), JOBS.to_string());
    assert_eq!(database.value("SELECT count(*) FROM models WHERE status = 'trained'"), JOBS.to_string());
    // Who takes a job passes over no older one, but for those that the others are just taking.
    let skipped: usize = database.value("SELECT max(skipped) FROM changes").parse().unwrap();
    assert!(skipped < WORKERS, "{skipped} older jobs were left in the queue");
    for worker in &workers {
        worker.expect_log("trained in");
        assert!(!worker.log().contains(" WARN "), "{}", worker.log());
    }
}

#[test]
fn services_that_start_at_once_on_an_empty_database_all_come_up() {
    let database = Database::empty();
    let services: Vec<Service> = thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(|| Settings::new(&database.url).serve())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let migrated = services.iter().filter(|service| service.process.log().contains("ran the database migrations"));
    assert_eq!(migrated.count(), 1);
    for service in &services {
        service.get("/health/ready").ok(200);
        service.train(&example());
        assert!(!service.process.log().contains(" ERROR "), "{}", service.process.log());
    }
}
