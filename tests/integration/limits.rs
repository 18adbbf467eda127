//! Limits on the queue and on a training.

use std::thread;
use std::time::Instant;

use diesel::connection::SimpleConnection;
use serde_json::json;

use crate::support::{Database, Raw, Settings, example, long_job, wait_until, with};

#[test]
fn a_full_queue_takes_no_more_until_there_is_room() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_QUEUE_LIMIT", 5).serve();
    // However many come at once: no more than the limit are taken.
    let replies = thread::scope(|scope| {
        let posts: Vec<_> = (0..20).map(|_| scope.spawn(|| service.post("/train", &example()))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect::<Vec<_>>()
    });
    let (accepted, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 202);
    assert_eq!(accepted.len(), 5);
    for reply in refused {
        assert_eq!(reply.error(503), "the queue is full: 5 trainings are waiting; try again later");
        assert_eq!(reply.json()["code"], "queue_full");
        assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    assert_eq!(database.stored_rows(), "5 5 5");

    let id = database.value("SELECT min(id) FROM models").parse::<i64>().unwrap();
    service.post(&format!("/model/{id}/cancel"), &json!({})).ok(202);
    service.submit(&example());
    service.post("/train", &example()).error(503);
    let _worker = Settings::new(&database.url).worker();
    wait_until("there is room again", || service.post("/train", &example()).status == 202);
}

#[test]
fn a_full_queue_is_told_before_a_large_body_is_sent() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_QUEUE_LIMIT", 1).serve();
    let csv = "y,x\n".to_owned() + &"1,2\n3,5\n".repeat(10_000);
    let headers = [("Content-Type", "text/csv"), ("Idempotency-Key", "first")];
    let first = service.send("POST", "/train?target=y&seed=1", &headers, csv.as_bytes()).ok(202);

    for body in [
        "Content-Length: 9999999999\r\n\r\ny,x\n1,2\n3,5\n1,2\n",
        "Transfer-Encoding: chunked\r\n\r\n10\r\ny,x\n1,2\n3,5\n1,2\n\r\n",
    ] {
        let mut client = Raw::connect(&service);
        assert!(client.send(format!("POST /train?target=y HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n{body}")));
        // Nothing more is sent.
        let reply = client.reply();
        assert_eq!(reply.error(503), "the queue is full: 1 trainings are waiting; try again later");
        assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    }
    // What was accepted before is accepted again.
    let reply = service.send("POST", "/train?target=y&seed=1", &headers, csv.as_bytes());
    assert_eq!((reply.header("idempotent-replayed"), reply.ok(202)), ("true", first));
    assert_eq!(database.stored_rows(), "1 1 1");
}

#[test]
fn a_training_that_takes_too_long_fails_and_is_not_tried_again() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_TRAINING_LIMIT_SECONDS", 1).serve();
    let penalties: Vec<f64> = (0..200).map(|i| 1.0 + f64::from(i)).collect();
    let ids =
        [service.submit(&with(long_job(), json!({"l2_coef": penalties, "n_folds": 400}))), service.submit(&example())];
    let model = service.ended(ids[0]);
    assert_eq!(
        (&model["status"], &model["attempt"], &model["model"]),
        (&json!("failed"), &json!(1), &json!(null)),
        "{model}"
    );
    assert_eq!(model["error"], "the training took longer than 1 s, the limit that training_limit_seconds sets");
    // The worker itself goes on.
    assert_eq!(service.ended(ids[1])["status"], "trained");
    assert!(!service.process.log().contains("a worker has ended"), "{}", service.process.log());
}

#[test]
fn a_training_that_does_not_stop_in_time_fails_and_ends_its_worker() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).serve();
    let id = service.submit(&example());
    // Reading the second half of the rows takes as long as this lock is held.
    database.execute(
        "INSERT INTO dataset_chunks SELECT dataset_id, 1, cells, others FROM dataset_chunks;
         UPDATE datasets SET n_rows = 2 * n_rows;
         ALTER TABLE dataset_chunks RENAME TO halves;
         CREATE VIEW dataset_chunks AS
             SELECT * FROM halves WHERE position = 0 OR pg_advisory_xact_lock_shared(1) IS NOT NULL",
    );
    let mut blocker = database.connect();
    blocker.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    let start = Instant::now();
    let mut worker = Settings::new(&database.url).set("ROCKET_TRAINING_LIMIT_SECONDS", 1).worker();
    let (code, log) = worker.outcome();
    assert!(code != Some(0) && start.elapsed().as_secs() < 15, "{code:?} after {:?}: {log}", start.elapsed());
    let model = service.model(id);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("failed"), &json!(1)), "{model}");
    assert!(model["error"].as_str().unwrap().contains("longer than 1 s"), "{model}");
}
