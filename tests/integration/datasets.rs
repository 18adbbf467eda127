//! `POST /datasets`, `GET /dataset/N`, `GET /datasets`, `DELETE /dataset/N`, and trainings on a dataset.

use std::thread;

use diesel::connection::SimpleConnection;
use serde_json::{Value, json};

use crate::support::{Database, Reply, Service, Settings, example, generated_csv, long_job, wait_until, with};

/// Posts a dataset and returns its document.
#[track_caller]
fn post(service: &Service, csv: &str) -> Value {
    service.post_as("text/csv", "/datasets", csv).ok(201)
}

/// A form with these fields: their headers besides the name, and their values.
fn form(fields: &[(&str, &str, &str)]) -> String {
    let part = |(name, headers, value): &(&str, &str, &str)| {
        format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"{headers}\r\n\r\n{value}\r\n")
    };
    fields.iter().map(part).collect::<String>() + "--XyZ--\r\n"
}

#[track_caller]
fn post_form(service: &Service, body: impl AsRef<[u8]>) -> Reply {
    service.post_as("multipart/form-data; boundary=XyZ", "/datasets", body)
}

/// The example without its rows, to be trained on a dataset.
fn on(dataset: &Value, fields: Value) -> Value {
    with(with(example(), json!({"data": null, "dataset_id": dataset["dataset_id"]})), fields)
}

#[test]
fn a_dataset_is_described_in_whatever_way_it_is_posted() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let csv = "a,\"b, c\"\n1,10\n2,10\n4,10\n9,10\n";
    let reply = service.post_as("text/csv", "/datasets?name=some%20rows", csv);
    let posted = reply.ok(201);
    assert_eq!(reply.header("location"), "/dataset/1");
    let expected = json!({
        "dataset_id": 1, "name": "some rows", "created_at": posted["created_at"], "standalone": true,
        "n_rows": 4, "n_columns": 2,
        // The deviations from 4 are -3, -2, 0 and 5: their squares have the mean 9.5.
        "columns": [
            {"name": "a", "count": 4, "min": 1.0, "max": 9.0, "mean": 4.0, "std": 9.5_f64.sqrt()},
            {"name": "b, c", "count": 4, "min": 10.0, "max": 10.0, "mean": 10.0, "std": 0.0},
        ],
        "models": [], "n_models": 0,
    });
    assert_eq!(posted, expected);
    assert_eq!(service.get("/dataset/1").ok(200), expected);

    let file = "; filename=\"rows.csv\"\r\nContent-Type: text/csv";
    let others = [
        service.post("/datasets", &json!({"data": csv, "name": "some rows"})),
        post_form(&service, form(&[("file", file, csv), ("name", "", "some rows")])),
        post_form(&service, form(&[("name", "", "some rows"), ("data", "", csv)])),
    ];
    for (id, reply) in (2..).zip(others) {
        let document = reply.ok(201);
        let same = json!({"dataset_id": id, "created_at": document["created_at"]});
        assert_eq!(document, with(expected.clone(), same));
    }
    assert_eq!(database.stored_rows(), "4 4 0");
}

#[test]
fn a_form_may_be_compressed_and_its_name_may_be_empty() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let body = form(&[("name", "", ""), ("file", "; filename=\"x.csv\"", "a\n1\n2\n")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    let headers = [("Content-Type", "multipart/form-data; boundary=\"XyZ\""), ("Content-Encoding", "gzip")];
    let document = service.send("POST", "/datasets", &headers, &gzip.finish().unwrap()).ok(201);
    assert_eq!((&document["name"], &document["columns"][0]["mean"]), (&Value::Null, &json!(1.5)));
}

#[test]
fn bad_datasets_are_refused_with_the_place_and_nothing_is_stored() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_LIMITS", "{train=\"200 kB\", stream=\"200 kB\"}").serve();
    let long = "x".repeat(1_001);
    let cases = [
        ("text/csv", "/datasets", "a,b\n1,x\n", 422, "data: line 2, column \"b\": \"x\" is not a number"),
        ("text/csv", "/datasets", "a,b\n", 422, "data: the CSV has no rows"),
        ("text/csv", "/datasets", "", 422, "data: the CSV is empty"),
        ("text/csv", "/datasets?target=a", "a\n1\n", 422, "unknown parameter \"target\"; known is name"),
        ("text/csv", "/datasets?name=a&name=b", "a\n1\n", 422, "\"name\": given twice"),
        ("text/csv", "/datasets?name=%ff", "a\n1\n", 422, "not valid UTF-8"),
        ("text/csv", "/datasets?name=%00", "a\n1\n", 422, "no NUL character"),
        ("text/csv", &format!("/datasets?name={long}"), "a\n1\n", 422, "name: at most 1000 characters"),
        ("text/csv", "/datasets", &"1".repeat(200_001), 413, "200kB (200000 bytes)"),
        ("application/json", "/datasets", "{\"data\": \"a\\n1\\n\", \"target\": \"a\"}", 422, "unknown field `target`"),
        ("application/json", "/datasets", "{\"name\": \"a\"}", 422, "missing field `data`"),
        ("application/json", "/datasets", "{\"data\": 5}", 422, "data: invalid type"),
        ("application/json", "/datasets", "{\"data\": ", 400, "not valid JSON"),
        (
            "application/json",
            "/datasets?name=a",
            "{\"data\": \"a\\n1\\n\"}",
            422,
            "query parameters go with a text/csv",
        ),
        (
            "application/octet-stream",
            "/datasets",
            "a\n1\n",
            415,
            "application/json, text/csv or multipart/form-data, in UTF-8, but is",
        ),
        ("multipart/form-data", "/datasets", "a\n1\n", 400, "lacks its boundary"),
    ];
    for (content_type, path, body, status, sentence) in cases {
        let error = service.post_as(content_type, path, body).error(status);
        assert!(error.contains(sentence), "{content_type} {path}: {error}");
    }
    let file = ("file", "; filename=\"x.csv\"", "a\n1\n");
    let forms = [
        (form(&[("name", "", "x")]), 422, "missing field `file`"),
        (form(&[file, file]), 422, "file: given twice in the form"),
        (form(&[file, ("target", "", "a")]), 422, "unknown field \"target\" of the form"),
        (form(&[("file", "", "a\n1,2\n")]), 422, "data: line 2 has more cells than the header"),
        (form(&[file, ("name", "", &long)]), 422, "name: at most 1000 characters"),
        (form(&[file, ("name", "", &long.repeat(70))]), 422, "name: the field is longer than 65536 bytes"),
        (form(&[file]).replace("--XyZ--", ""), 400, "not the multipart/form-data that it says"),
        ("a,b\n1,2\n".to_owned(), 400, "not the multipart/form-data that it says"),
        (form(&[("file", "", &"1\n".repeat(101_000))]), 413, "200kB (200000 bytes)"),
    ];
    for (body, status, sentence) in forms {
        let error = post_form(&service, &body).error(status);
        assert!(error.contains(sentence), "{error}\n{body:.300}");
    }
    let mut body = form(&[file]).into_bytes();
    let place = body.iter().position(|&byte| byte == b'1').unwrap();
    body[place] = 0xff;
    let error = post_form(&service, body).error(400);
    assert!(error.contains("the field file is not valid UTF-8: byte 3 (line 2)"), "{error}");
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn statistics_do_not_depend_on_how_the_rows_are_stored() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    // Three chunks of 4 MiB.
    let csv = generated_csv(20_000, 60);
    let posted = post(&service, &csv);
    assert_eq!(database.stored_rows(), "1 3 0");
    let values: Vec<f64> = csv.lines().skip(1).map(|line| line.split(',').nth(60).unwrap().parse().unwrap()).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    let found = |document: &Value, what: &str| document["columns"][60][what].as_f64().unwrap();
    // As a dataset looks that is older than the statistics: they are made from the chunks when somebody asks.
    database.execute("UPDATE datasets SET statistics = NULL");
    let remade = service.get("/dataset/1").ok(200);
    for document in [posted, remade, service.get("/dataset/1").ok(200)] {
        assert!((found(&document, "mean") - mean).abs() < 1e-13, "{} is not {mean}", found(&document, "mean"));
        assert!((found(&document, "std") - std).abs() < 1e-13, "{} is not {std}", found(&document, "std"));
        assert_eq!(document["columns"][60]["count"], 20_000);
    }
}

#[test]
fn many_models_are_trained_on_one_dataset_as_on_rows_of_their_own() {
    let database = Database::new();
    let service = Service::start(&database);
    let csv = "a,b,c,w,f\n1,0,2,1,0\n2.5,1,-1,2,1\n3,4,0.5,0,2\n0.5,-2,1.5,1,0\n4,3,3,1,1\n2,2,-0.5,1,2\n";
    let dataset = post(&service, csv);
    let wishes = [
        json!({"seed": 1}),
        json!({"seed": 1, "target": "b", "l2_coef": [0.5]}),
        json!({"seed": 2, "n_folds": 2, "weight_column": "w"}),
        json!({"n_folds": null, "fold_column": "f"}),
    ];
    for wish in &wishes {
        let alone = service.train(&with(with(example(), json!({"data": csv})), wish.clone()));
        let model = service.train(&on(&dataset, wish.clone()));
        assert_eq!(model["dataset_id"], dataset["dataset_id"]);
        for field in ["params", "model", "best", "cv_results", "metrics", "warnings"] {
            assert_eq!(model[field], alone[field], "{wish}: {field}");
        }
    }
    // The parameters in the query string, without a body.
    let reply = service.send("POST", "/train?dataset_id=1&target=c&l2_coef=1,2&n_folds=3", &[], b"");
    let id = reply.ok(202)["model_id"].clone();
    assert_eq!(service.ended(id.as_i64().unwrap())["status"], "trained");
    assert_eq!(database.stored_rows(), "5 5 9");
    let document = service.get("/dataset/1").ok(200);
    assert_eq!((&document["n_models"], &document["models"]), (&json!(5), &json!([9, 8, 6, 4, 2])));
    let listed = service.get("/models?dataset_id=1").ok(200);
    let ids: Vec<&Value> = listed["models"].as_array().unwrap().iter().map(|model| &model["model_id"]).collect();
    assert_eq!(ids, [9, 8, 6, 4, 2]);
}

#[test]
fn trainings_that_a_dataset_does_not_allow_are_refused_at_once() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let dataset = post(&service, "a,b,w,f,o\n1,2,1,1,1\n3,4,1,1,0\n5,6,-1,1,0\n7,8,0,1,0\n");
    let cases = [
        (json!({"target": "z"}), "target: the CSV has no column \"z\""),
        (json!({"weight_column": "x"}), "weight_column: the CSV has no column \"x\""),
        (json!({"weight_column": "a"}), "column \"a\" cannot be more than one of"),
        (json!({"n_folds": 5}), "n_folds asks for at least 5 rows, but the CSV has 4"),
        (json!({"n_folds": 1}), "n_folds must be at least 2"),
        (json!({"l2_coef": []}), "l2_coef must not be empty"),
        (json!({"l2_coef": [-1]}), "l2_coef[0] must be a finite number of at least 0"),
        (json!({"weight_column": "w"}), "data: row 3, column \"w\": a weight must be at least 0, but is -1.0"),
        (json!({"fold_column": "f", "n_folds": null}), "column \"f\" must have at least 2 distinct values, but has 1"),
        (json!({"fold_column": "b", "n_folds": null, "weight_column": "o"}), "all rows of fold 2 have weight 0"),
        (json!({"data": "a,b\n1,2\n"}), "exactly one of them must be given"),
        (json!({"dataset_id": "1"}), "dataset_id: invalid type: string \"1\""),
        (json!({"dataset_id": 1.5}), "dataset_id: invalid type"),
        (json!({"dataset_id": null}), "missing field `data` or `dataset_id`"),
    ];
    for (fields, sentence) in cases {
        let error = service.post("/train", &on(&dataset, fields.clone())).error(422);
        assert!(error.contains(sentence), "{fields}: {error}");
    }
    for id in [json!(2), json!(0), json!(-1), json!(99_999_999_999_i64)] {
        let error = service.post("/train", &on(&json!({"dataset_id": id}), json!({}))).error(404);
        assert_eq!(error, format!("there is no dataset {id}"));
    }
    let error = service.post_as("text/csv", "/train?dataset_id=1&target=a", "a,b\n1,2\n").error(422);
    assert!(error.contains("exactly one of them must be given"), "{error}");
    let error = service.send("POST", "/train?dataset_id=x&target=a", &[], b"").error(422);
    assert!(error.contains("dataset_id: invalid type: string \"x\""), "{error}");
    assert_eq!(database.stored_rows(), "1 1 0");
}

#[test]
fn the_list_of_datasets_goes_from_the_newest_to_the_oldest_in_pages() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    assert_eq!(service.get("/datasets").ok(200), json!({"datasets": [], "next": null}));
    for name in ["a", "b", "a"] {
        service.post("/datasets", &json!({"data": "x,y\n1,2\n", "name": name})).ok(201);
    }
    service.submit(&example());
    let list = |query: &str| {
        let list = service.get(&format!("/datasets{query}")).ok(200);
        let ids = list["datasets"].as_array().unwrap().iter().map(|dataset| dataset["dataset_id"].as_i64().unwrap());
        (ids.collect::<Vec<i64>>(), list["next"].clone())
    };
    assert_eq!(list(""), (vec![4, 3, 2, 1], Value::Null));
    assert_eq!(list("?limit=3"), (vec![4, 3, 2], json!(2)));
    assert_eq!(list("?limit=3&after=2"), (vec![1], Value::Null));
    assert_eq!(list("?name=a"), (vec![3, 1], Value::Null));
    let newest = service.get("/datasets?limit=1").ok(200)["datasets"][0].clone();
    let expected = json!({"dataset_id": 4, "name": null, "created_at": newest["created_at"], "standalone": false,
        "n_rows": 6, "n_columns": 3});
    assert_eq!(newest, expected);
    for (query, sentence) in [
        ("limit=0", "limit: expected a whole number from 1 to 1000"),
        ("after=x", "after: "),
        ("name=%00", "name: "),
        ("status=queued", "unknown parameter \"status\"; known are limit, after, name"),
    ] {
        let error = service.get(&format!("/datasets?{query}")).error(422);
        assert!(error.contains(sentence), "{query}: {error}");
    }
    let error = service.get("/models?dataset_id=x").error(422);
    assert!(error.contains("dataset_id: expected the number of a dataset, not \"x\""), "{error}");
}

#[test]
fn a_dataset_stays_while_a_job_needs_it_and_its_models_survive_it() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let dataset = post(&service, example()["data"].as_str().unwrap());
    let delete = || service.send("DELETE", "/dataset/1", &[], b"");
    let [first, second] = [(); 2].map(|()| service.submit(&on(&dataset, json!({}))));
    let error = delete().error(409);
    assert_eq!(error, "dataset 1 cannot be deleted yet: model 1 is to be trained on it");
    service.post(&format!("/model/{second}/cancel"), &json!({})).ok(202);
    let worker = Settings::new(&database.url).worker();
    assert_eq!(service.ended(first)["status"], "trained");
    drop(worker);
    assert_eq!(delete().status, 204);
    delete().error(404);
    service.get("/dataset/1").error(404);
    for id in [first, second] {
        assert_eq!(service.model(id)["dataset_id"], Value::Null);
    }
    service.predict(&json!(first), "b,c\n1,2\n");
    assert_eq!(service.send("DELETE", &format!("/model/{first}"), &[], b"").status, 204);
    assert_eq!(database.stored_rows(), "0 0 1");
    for id in ["x", "-1", "99999999999", "0"] {
        service.get(&format!("/dataset/{id}")).error(404);
        service.send("DELETE", &format!("/dataset/{id}"), &[], b"").error(404);
    }
}

#[test]
fn a_dataset_in_training_is_not_deleted() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.submit(&long_job());
    wait_until("the job is taken", || service.model(id)["status"] == "training");
    let error = service.send("DELETE", "/dataset/1", &[], b"").error(409);
    assert!(error.contains(&format!("model {id} is to be trained on it")), "{error}");
    assert_eq!(service.ended(id)["status"], "trained");
}

#[test]
fn what_came_with_a_training_goes_with_the_last_model_and_what_was_posted_alone_stays() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    service.submit(&example());
    service.submit(&on(&json!({"dataset_id": 1}), json!({})));
    let alone = post(&service, "a,b,c\n1,2,3\n2,3,5\n5,1,7\n4,4,4\n");
    service.submit(&on(&alone, json!({})));
    for (model, left) in [(1, "2 2 2"), (2, "1 1 1"), (3, "1 1 0")] {
        assert_eq!(service.send("DELETE", &format!("/model/{model}"), &[], b"").status, 204);
        assert_eq!(database.stored_rows(), left, "after model {model}");
    }
    service.get("/dataset/1").error(404);
    assert_eq!(service.get("/dataset/2").ok(200)["n_models"], 0);
}

#[test]
fn a_deletion_and_a_training_at_once_lose_nothing() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_POOL_TIMEOUT_SECONDS", 20).serve();
    // The training has been checked and waits to be stored when the deletion takes its turn, and the other way round.
    for deletion_first in [true, false] {
        let dataset = post(&service, example()["data"].as_str().unwrap());
        let path = format!("/dataset/{}", dataset["dataset_id"]);
        let mut blocker = database.connect();
        blocker
            .batch_execute(&format!("BEGIN; SELECT FROM datasets WHERE id = {} FOR UPDATE", dataset["dataset_id"]))
            .unwrap();
        let waiting = |n: usize| {
            wait_until("the request waits for the dataset", || {
                database.value("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") == n.to_string()
            });
        };
        thread::scope(|scope| {
            let delete = || service.send("DELETE", &path, &[], b"");
            let train = || service.post("/train", &on(&dataset, json!({})));
            let (first, second) = if deletion_first {
                let first = scope.spawn(delete);
                waiting(1);
                (first, scope.spawn(train))
            } else {
                let first = scope.spawn(train);
                waiting(1);
                (first, scope.spawn(delete))
            };
            waiting(2);
            blocker.batch_execute("COMMIT").unwrap();
            let (first, second) = (first.join().unwrap(), second.join().unwrap());
            if deletion_first {
                assert_eq!(first.status, 204, "{first:?}");
                second.error(404);
            } else {
                first.ok(202);
                assert!(second.error(409).contains("cannot be deleted yet"), "{second:?}");
            }
        });
    }
    assert_eq!(database.stored_rows(), "1 1 1");
}

#[test]
fn models_of_one_dataset_are_deleted_at_once_without_a_deadlock() {
    let database = Database::new();
    let service = Service::start(&database);
    for round in 0..5 {
        let dataset = post(&service, example()["data"].as_str().unwrap());
        let ids: Vec<i64> = (0..8).map(|_| service.submit(&on(&dataset, json!({})))).collect();
        ids.iter().for_each(|&id| assert_eq!(service.ended(id)["status"], "trained"));
        thread::scope(|scope| {
            let (service, path) = (&service, format!("/dataset/{}", dataset["dataset_id"]));
            let all = ids.iter().map(|id| format!("/model/{id}")).chain([path]);
            let deletions: Vec<_> =
                all.map(|path| scope.spawn(move || service.send("DELETE", &path, &[], b""))).collect();
            for deletion in deletions {
                assert_eq!(deletion.join().unwrap().status, 204, "round {round}");
            }
        });
    }
    assert_eq!(database.stored_rows(), "0 0 0");
}
