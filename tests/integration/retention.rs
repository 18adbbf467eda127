//! Datasets that no job has needed for the configured time are dropped; models are not.

use serde_json::{Value, json};

use crate::support::{Database, Service, Settings, example, wait_until, with};

/// Without workers, and with ten minutes after which datasets may go.
fn serve(database: &Database) -> Service {
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    settings.set("ROCKET_DATASET_RETENTION_SECONDS", 600).serve()
}

/// A dataset that is posted on its own.
fn post_dataset(service: &Service) -> Value {
    service.post("/datasets", &json!({"data": example()["data"]})).ok(201)["dataset_id"].clone()
}

/// A training on a dataset that exists.
fn submit_on(service: &Service, dataset_id: &Value) -> i64 {
    service.submit(&with(example(), json!({"data": null, "dataset_id": dataset_id})))
}

#[test]
fn rows_go_when_their_jobs_have_ended_long_ago_and_models_stay() {
    let database = Database::new();
    let services = [serve(&database), serve(&database)];
    let service = &services[0];
    let worker = Settings::new(&database.url).worker();
    let (unused, shared, ended, needed) =
        (post_dataset(service), post_dataset(service), post_dataset(service), post_dataset(service));
    let old: Vec<i64> = (0..50).map(|_| service.submit(&example())).collect();
    let old_on_shared = submit_on(service, &shared);
    let (old_on_ended, old_on_needed) = (submit_on(service, &ended), submit_on(service, &needed));
    for &id in old.iter().chain([&old_on_shared, &old_on_ended, &old_on_needed]) {
        assert_eq!(service.ended(id)["status"], "trained");
    }
    let predictions = service.predict(&json!(old[0]), "b,c\n1,2\n");
    drop(worker);
    // Of two whose old job is not the only one, the other ended just now, or is still waiting.
    let recent = submit_on(service, &shared);
    service.post(&format!("/model/{recent}/cancel"), &json!({})).ok(202);
    let waiting = submit_on(service, &needed);
    assert_eq!(database.stored_rows(), "54 54 55");

    database.execute(&format!(
        "UPDATE models SET finished_at = finished_at - interval '601 seconds' WHERE finished_at IS NOT NULL AND id <> {recent}"
    ));

    wait_until("the old ones are gone", || database.value("SELECT count(*) FROM datasets") == "3");
    assert_eq!(database.stored_rows(), "3 3 55");
    for dataset in [&unused, &shared, &needed] {
        service.get(&format!("/dataset/{dataset}")).ok(200);
    }
    service.get(&format!("/dataset/{ended}")).error(404);
    let model = service.model(old[0]);
    assert_eq!((&model["status"], &model["dataset_id"]), (&json!("trained"), &Value::Null));
    assert_eq!(service.predict(&json!(old[0]), "b,c\n1,2\n"), predictions);
    // Two services have shared the work, and each dataset was dropped once.
    let dropped = |service: &Service| -> usize {
        let log = service.process.log();
        let counts =
            log.lines().filter_map(|line| line.split_once("dropped ")?.1.split(' ').next()?.parse::<usize>().ok());
        counts.sum()
    };
    wait_until("both say what they did", || services.iter().map(dropped).sum::<usize>() == 51);
    // The job that was waiting all the time still has its rows.
    let _worker = Settings::new(&database.url).worker();
    assert_eq!(service.ended(waiting)["status"], "trained");
}
