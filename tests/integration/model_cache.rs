//! What the API keeps of trained models in memory, with several processes on one database.

use serde_json::{Value, json};

use crate::support::{Database, Service, Settings, example, new_key, wait_until, with};

const ROW: &str = "b,c\n1,2\n";

fn predict(service: &Service, id: i64) -> u16 {
    service.post(&format!("/model/{id}/predict"), &json!({"data": ROW})).status
}

/// How many connections of the API have read a model by itself since `begin`.
fn readers_since(database: &Database, begin: &str) -> String {
    database.value(&format!(
        "SELECT count(*)::text FROM pg_stat_activity
         WHERE application_name = 'ridgeline' AND query_start > '{begin}' AND query LIKE '%\"models\".\"id\" = $1%'"
    ))
}

#[test]
fn a_trained_model_is_read_once() {
    let database = Database::new();
    let service = Service::start(&database);
    let forgetful = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_LIMITS", "{models=0}").serve();
    let id = service.train(&example())["model_id"].as_i64().unwrap();
    let ask = |service: &Service| {
        let begin = database.value("SELECT clock_timestamp()::text");
        for _ in 0..10 {
            assert_eq!(predict(service, id), 200);
            assert_eq!(service.model(id)["status"], "trained");
        }
        readers_since(&database, &begin)
    };
    // The announcement of its end may still be on the way when it is read for the first time.
    wait_until("the model is kept", || ask(&service) == "0");
    assert_ne!(ask(&forgetful), "0");
}

#[test]
fn what_one_process_deletes_no_other_shows_any_more() {
    let database = Database::new();
    let one = Service::start(&database);
    let other = Service::without_workers(&database);
    for _ in 0..5 {
        let id = one.train(&example())["model_id"].as_i64().unwrap();
        wait_until("both have it", || predict(&one, id) == 200 && predict(&other, id) == 200);
        assert_eq!(other.model(id)["status"], "trained");
        assert_eq!(one.send("DELETE", &format!("/model/{id}"), &[], b"").status, 204);
        assert_eq!((predict(&one, id), one.get(&format!("/model/{id}")).status), (404, 404));
        // The announcement may be late on a busy machine.
        wait_until("the other has heard of it", || predict(&other, id) == 404);
        assert_eq!(other.get(&format!("/model/{id}")).status, 404);
    }
}

#[test]
fn a_document_does_not_name_a_deleted_dataset() {
    let database = Database::new();
    let one = Service::start(&database);
    let other = Service::without_workers(&database);
    let dataset = one.post("/datasets", &json!({"data": example()["data"]})).ok(201)["dataset_id"].clone();
    let request = with(example(), json!({"data": null, "dataset_id": dataset}));
    let id = one.train(&request)["model_id"].as_i64().unwrap();
    for service in [&one, &other] {
        assert_eq!((&service.model(id)["dataset_id"], predict(service, id)), (&dataset, 200));
    }
    assert_eq!(one.send("DELETE", &format!("/dataset/{dataset}"), &[], b"").status, 204);
    assert_eq!((&one.model(id)["dataset_id"], predict(&one, id)), (&Value::Null, 200));
    wait_until("the other has heard of it", || other.model(id)["dataset_id"].is_null());
    assert_eq!(predict(&other, id), 200);
}

#[test]
fn what_is_kept_belongs_to_its_key() {
    let database = Database::new();
    let (mine, theirs) = (new_key(&database, "mine"), new_key(&database, "theirs"));
    let service = Service::start(&database);
    let [mine, theirs] = [mine, theirs].map(|key| format!("Bearer {key}"));
    let ask = |key: &str, method: &str, path: &str, body: Value| {
        let headers = [("Authorization", key), ("Content-Type", "application/json"), ("Prefer", "wait=50")];
        service.send(method, path, &headers, body.to_string().as_bytes())
    };
    let trained = ask(&mine, "POST", "/train", example()).ok(200);
    let path = format!("/model/{}", trained["model_id"]);
    for _ in 0..5 {
        assert_eq!(ask(&mine, "GET", &path, json!({})).ok(200), trained);
        ask(&theirs, "GET", &path, json!({})).error(404);
        ask(&mine, "POST", &format!("{path}/predict"), json!({"data": ROW})).ok(200);
        ask(&theirs, "POST", &format!("{path}/predict"), json!({"data": ROW})).error(404);
    }
}

#[test]
fn nothing_is_believed_that_could_not_be_heard_of() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&example())["model_id"].as_i64().unwrap();
    wait_until("it is kept", || predict(&service, id) == 200 && service.model(id)["status"] == "trained");
    // The announcement comes when nobody listens.
    database.execute(&format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'LISTEN ridgeline_models%'
             OR query LIKE '%= ANY%' AND pid <> pg_backend_pid();
         DELETE FROM models WHERE id = {id}"
    ));
    wait_until("it is gone", || predict(&service, id) == 404);
    assert_eq!(service.get(&format!("/model/{id}")).status, 404);
}
