//! How soon a worker is free again when the job that it trains is cancelled or deleted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Database, Process, Service, Settings, example, generated_csv, long_job, wait_until, with};

/// The promise is a second; the machine is busy with other tests.
const SOON: Duration = Duration::from_secs(2);

/// Withdraws a job that is trained, and waits until its worker is free.
#[track_caller]
fn withdraw(service: &Service, worker: &Process, id: i64, method: &str, call: &str) -> Duration {
    wait_until("the training is under way", || {
        service.model(id)["progress"].as_f64().is_some_and(|progress| progress > 0.0)
    });
    let start = Instant::now();
    let reply = service.send(method, &format!("/model/{id}{call}"), &[], b"");
    assert!(reply.status == 202 || reply.status == 204, "{reply:?}");
    assert!(start.elapsed() < SOON, "the reply took {:?}", start.elapsed());
    worker.expect_log(&format!("model {id}: the lease was lost after"));
    start.elapsed()
}

/// A dataset of `n` times the same 2,500 rows of 200 columns, 4 MB each time: stored as if it had been posted.
fn store_large(service: &Service, database: &Database, n: usize) -> Value {
    let dataset = service.post_as("text/csv", "/datasets", generated_csv(2_500, 199)).ok(201)["dataset_id"].clone();
    database.execute(&format!(
        "INSERT INTO dataset_pages
         SELECT dataset_id, position + copy * (SELECT 1 + max(position) FROM dataset_chunks), page, cells
         FROM dataset_pages, generate_series(1, {n} - 1) copy;
         INSERT INTO dataset_chunks
         SELECT dataset_id, position + copy * (SELECT 1 + max(position) FROM dataset_chunks), cells, others, n_pages
         FROM dataset_chunks, generate_series(1, {n} - 1) copy;
         UPDATE datasets SET n_rows = n_rows * {n}"
    ));
    dataset
}

#[test]
fn small_and_large_trainings_end_soon_when_they_are_cancelled_or_deleted() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let worker = Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 60).worker();
    let penalties: Vec<f64> = (0..200).map(f64::from).collect();
    let large = store_large(&service, &database, 40);
    let large = with(
        example(),
        json!({"data": null, "dataset_id": large, "target": "y", "n_folds": 100, "l2_coef": penalties}),
    );
    let small = with(long_job(), json!({"n_folds": 200}));
    for request in [&small, &large] {
        for (method, call) in [("POST", "/cancel"), ("DELETE", "")] {
            let took = withdraw(&service, &worker, service.submit(request), method, call);
            assert!(took < SOON, "{method} {call}: {took:?}");
        }
    }
    // The worker goes on.
    service.train(&example());
}
