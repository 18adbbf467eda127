//! `GET /models`, `POST /model/N/cancel` and `DELETE /model/N`.

use serde_json::{Value, json};

use crate::support::{Database, Service, Settings, example, long_job, wait_until, with};

fn ids(list: &Value) -> Vec<i64> {
    list["models"].as_array().unwrap().iter().map(|model| model["model_id"].as_i64().unwrap()).collect()
}

#[test]
fn the_list_goes_from_the_newest_to_the_oldest_in_pages() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    assert_eq!(service.get("/models").ok(200), json!({"models": [], "next": null}));
    for name in ["a", "b", "a", "b", "a"] {
        service.submit(&with(example(), json!({"name": name})));
    }
    let list = |query: &str| service.get(&format!("/models{query}")).ok(200);
    assert_eq!((ids(&list("")), &list("")["next"]), (vec![5, 4, 3, 2, 1], &Value::Null));
    let page = list("?limit=2");
    assert_eq!((ids(&page), &page["next"]), (vec![5, 4], &json!(4)));
    let page = list("?limit=3&after=4");
    assert_eq!((ids(&page), &page["next"]), (vec![3, 2, 1], &Value::Null));
    assert_eq!(ids(&list("?name=b")), [4, 2]);
    service.post("/model/4/cancel", &json!({})).ok(202);
    assert_eq!(ids(&list("?status=cancelled")), [4]);
    assert_eq!(ids(&list("?status=queued&name=b")), [2]);
    assert!(ids(&list("?status=trained")).is_empty());
    let summary = list("?limit=1")["models"][0].clone();
    assert_eq!((&summary["name"], &summary["status"], &summary["best"]), (&json!("a"), &json!("queued"), &Value::Null));
}

#[test]
fn models_carry_tags_and_are_found_by_them() {
    let database = Database::new();
    let service = Service::start(&database);
    let tags = json!(["nightly", "team:größe", "a b"]);
    let model = service.train(&with(example(), json!({"name": "n", "tags": tags})));
    assert_eq!(model["tags"], tags);
    let query = "/train?target=a&n_folds=4&tags=nightly,%20weekly%20&name=n";
    service.post_as("text/csv", query, example()["data"].as_str().unwrap()).ok(202);
    service.submit(&with(example(), json!({"name": "n"})));
    service.submit(&with(example(), json!({"tags": []})));
    service.ended(4);
    let list = |query: &str| service.get(&format!("/models{query}")).ok(200);
    let of_all: Vec<Value> = list("")["models"].as_array().unwrap().iter().map(|model| model["tags"].clone()).collect();
    assert_eq!(of_all, [json!([]), json!([]), json!(["nightly", "weekly"]), tags]);
    for (query, expected) in [
        ("?tag=nightly", vec![2, 1]),
        ("?tag=nightly&limit=1&after=2", vec![1]),
        ("?tag=weekly&name=n&status=trained", vec![2]),
        ("?tag=nightly,a%20b", vec![1]),
        ("?tag=team:gr%C3%B6%C3%9Fe", vec![1]),
        ("?tag=weekly,a%20b", vec![]),
        ("?tag=night", vec![]),
        ("?tag=Nightly", vec![]),
        ("?tag=nightly&name=m", vec![]),
        ("?name=n", vec![3, 2, 1]),
    ] {
        assert_eq!(ids(&list(query)), expected, "{query}");
    }
}

#[test]
fn the_longest_names_are_kept_and_found() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    // Of a thousand characters that no compression makes shorter.
    let name: String = (0..1000_u32).map(|i| char::from_u32(0x10000 + i * 7919 % 40_000).unwrap()).collect();
    let other = format!("{}x", name.chars().take(999).collect::<String>());
    for name in [&name, &other] {
        service.submit(&with(example(), json!({"name": name})));
        service.post("/datasets", &json!({"data": "a\n1\n", "name": name})).ok(201);
    }
    let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(ids(&service.get(&format!("/models?name={encoded}")).ok(200)), [1]);
    let datasets = service.get(&format!("/datasets?name={encoded}")).ok(200)["datasets"].clone();
    assert_eq!((datasets.as_array().unwrap().len(), &datasets[0]["name"]), (1, &json!(name)));
    let longer = with(example(), json!({"name": name + "x"}));
    assert!(service.post("/train", &longer).error(422).starts_with("name: at most 1000 characters"));
}

#[test]
fn wrong_tags_are_refused_and_nothing_is_stored() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let many: Vec<String> = (0..21).map(|i| i.to_string()).collect();
    let expected = "expected 1 to 100 characters without commas, control characters, or blanks at either end, not";
    for (tags, sentence) in [
        (json!("a"), "tags: invalid type: string \"a\", expected a list".to_owned()),
        (json!({"a": "b"}), "tags: invalid type: map, expected a list".to_owned()),
        (json!(["a", 1]), "tags[1]: invalid type: integer `1`".to_owned()),
        (json!(["a", null]), "tags[1]: invalid type: null".to_owned()),
        (json!(["a", ""]), format!("tags[1]: {expected} \"\"")),
        (json!(["a,b"]), format!("tags[0]: {expected} \"a,b\"")),
        (json!([" a"]), format!("tags[0]: {expected} \" a\"")),
        (json!(["a\n"]), format!("tags[0]: {expected}")),
        (json!(["\u{0}"]), format!("tags[0]: {expected}")),
        (json!(["ä".repeat(101)]), format!("tags[0]: {expected}")),
        (json!(["a", "b", "a"]), "tags[2]: \"a\" is given twice".to_owned()),
        (json!(many), "tags: the list has more than 20 elements".to_owned()),
    ] {
        let error = service.post("/train", &with(example(), json!({"tags": tags}))).error(422);
        assert!(error.starts_with(&sentence), "{tags}: {error}");
    }
    let error = service.post_as("text/csv", "/train?target=a&tags=a,", "a,b\n1,2\n").error(422);
    assert!(error.starts_with("tags[1]: expected"), "{error}");
    assert_eq!(database.stored_rows(), "0 0 0");
    let most: Vec<String> = (0..20).map(|i| format!("{}{i:02}", "ä".repeat(98))).collect();
    service.submit(&with(example(), json!({"tags": most})));
}

#[test]
fn wrong_parameters_of_the_list_are_named() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let cases = [
        ("limit=0", "limit: expected a whole number from 1 to 1000"),
        ("limit=1001", "limit: "),
        ("limit=x", "limit: "),
        ("after=x", "after: "),
        ("after=-99999999999", "after: "),
        ("status=done", "status: expected one of queued, training, trained, failed, cancelled, not \"done\""),
        ("name=%00", "name: "),
        ("tag=", "tag: expected 1 to 100 characters"),
        ("tag=a,", "tag: expected 1 to 100 characters"),
        ("tag=a&tag=b", "\"tag\": given twice"),
        ("page=2", "unknown parameter \"page\""),
        ("limit=1&limit=2", "\"limit\": given twice"),
        ("name=%ff", "\"name\": the query string is not valid UTF-8"),
    ];
    for (query, sentence) in cases {
        let error = service.get(&format!("/models?{query}")).error(422);
        assert!(error.contains(sentence), "{query}: {error}");
    }
}

#[test]
fn a_queued_model_is_cancelled_at_once_and_never_trained() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let [first, second] = [service.submit(&example()), service.submit(&example())];
    let model = service.post(&format!("/model/{first}/cancel"), &json!({})).ok(202);
    assert_eq!((&model["status"], &model["model"]), (&json!("cancelled"), &Value::Null));
    assert!(model["finished_at"].is_string(), "{model}");
    let _worker = Settings::new(&database.url).worker();
    assert_eq!(service.ended(second)["status"], "trained");
    assert_eq!(service.model(first)["attempt"], 0);
    let error = service.post(&format!("/model/{first}/predict"), &json!({"data": "b,c\n1,2\n"})).error(409);
    assert!(error.ends_with("its status is cancelled"), "{error}");
}

#[test]
fn a_training_is_cancelled_and_its_worker_goes_on_with_the_next() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 60).serve();
    let [long, next] = [service.submit(&long_job()), service.submit(&example())];
    wait_until("the job is taken", || service.model(long)["status"] == "training");
    assert_eq!(service.post(&format!("/model/{long}/cancel"), &json!({})).ok(202)["status"], "cancelled");
    assert_eq!(service.ended(next)["status"], "trained");
    let model = service.model(long);
    assert_eq!((&model["status"], &model["model"], &model["attempt"]), (&json!("cancelled"), &Value::Null, &json!(1)));
    service.process.expect_log(&format!("model {long}: the lease was lost"));
}

#[test]
fn a_model_that_has_ended_cannot_be_cancelled() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&example())["model_id"].clone();
    let error = service.post(&format!("/model/{id}/cancel"), &json!({})).error(409);
    assert_eq!(error, format!("model {id} cannot be cancelled: its status is trained"));
    service.post("/model/99/cancel", &json!({})).error(404);
    service.post("/model/x/cancel", &json!({})).error(404);
}

#[test]
fn a_deleted_model_is_gone_with_its_data() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&example())["model_id"].clone();
    let path = format!("/model/{id}");
    let reply = service.send("DELETE", &path, &[], b"");
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    service.get(&path).error(404);
    service.post(&format!("{path}/predict"), &json!({"data": "b,c\n1,2\n"})).error(404);
    service.send("DELETE", &path, &[], b"").error(404);
    service.send("DELETE", "/model/x", &[], b"").error(404);
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn a_model_deleted_in_training_leaves_nothing_and_stops_nothing() {
    let database = Database::new();
    let service = Service::start(&database);
    let [long, next] = [service.submit(&long_job()), service.submit(&example())];
    wait_until("the job is taken", || service.model(long)["status"] == "training");
    assert_eq!(service.send("DELETE", &format!("/model/{long}"), &[], b"").status, 204);
    assert_eq!(service.ended(next)["status"], "trained");
    service.get(&format!("/model/{long}")).error(404);
    assert_eq!(database.stored_rows(), "1 1 1");
}
