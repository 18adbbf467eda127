//! `POST /train`: what it takes, what it answers, and what it refuses.

use serde_json::{Value, json};

use crate::support::{Database, Service, Settings, example, with};

#[test]
fn a_job_is_accepted_with_its_address() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let reply = service.post("/train", &example());
    assert_eq!(reply.ok(202), json!({"model_id": 1}));
    assert_eq!(reply.header("location"), "/model/1");
    assert_eq!(database.stored_rows(), "1 1 1");
}

#[test]
fn csv_bodies_take_the_same_parameters_in_the_query() {
    let database = Database::new();
    let service = Service::start(&database);
    let fields =
        json!({"seed": 7, "standardize": true, "loss": "sum", "name": "a name & more", "fit_intercept": false});
    let request = with(example(), fields);
    let by_json = service.train(&request);

    let query = "/train?target=a&n_folds=4&fit_intercept=false&l2_coef=1,10.,%201e2&seed=7&standardize=True&loss=sum\
                 &name=a%20name%20%26%20more";
    let csv = request["data"].as_str().unwrap();
    let id = service.post_as("text/csv; charset=utf-8", query, csv).ok(202)["model_id"].as_i64().unwrap();
    let by_csv = service.ended(id);

    for field in ["name", "params", "model", "best", "cv_results", "metrics", "warnings"] {
        assert_eq!(by_csv[field], by_json[field], "{field}");
    }
    assert_eq!(by_csv["params"]["seed"], 7);
}

#[test]
fn what_is_left_out_gets_its_default_and_is_reported() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&with(example(), json!({"n_folds": null, "fit_intercept": null, "l2_coef": null})));
    let params = service.model(id)["params"].clone();
    assert!(params["seed"].is_u64(), "{params}");
    let expected = json!({"target": "a", "n_folds": 5, "fit_intercept": true, "l2_coef": null, "seed": params["seed"],
        "loss": "mean", "standardize": false, "weight_column": null, "fold_column": null});
    assert_eq!(params, expected);
}

#[test]
fn bad_requests_are_refused_with_the_field_and_nothing_is_stored() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let cases: Vec<(Value, &str)> = vec![
        (json!({"data": null}), "missing field `data` or `dataset_id`"),
        (json!({"target": null}), "missing field `target`"),
        (json!({"target": "z"}), "target: the CSV has no column \"z\""),
        (json!({"weight_column": "w"}), "weight_column: the CSV has no column \"w\""),
        (json!({"fold_column": "f", "n_folds": null}), "fold_column: the CSV has no column \"f\""),
        (json!({"weight_column": "a"}), "column \"a\""),
        (json!({"fold_column": "b"}), "fold_column: the column is the folds, so n_folds and seed cannot be given too"),
        (json!({"n_folds": 1}), "n_folds must be at least 2, but is 1"),
        (json!({"n_folds": 7}), "n_folds asks for at least 7 rows, but the CSV has 6"),
        (json!({"n_folds": "4"}), "n_folds: invalid type: string \"4\""),
        (json!({"n_folds": 4.5}), "n_folds: invalid type: floating point `4.5`"),
        (json!({"n_folds": -4}), "n_folds: invalid value: integer `-4`"),
        (json!({"l2_coef": []}), "l2_coef must not be empty"),
        (json!({"l2_coef": [1.0, -1.0]}), "l2_coef[1] must be a finite number of at least 0, but is -1.0"),
        (json!({"l2_coef": [1.0, "x"]}), "l2_coef[1]: invalid type: string \"x\""),
        (
            json!({"l2_coef": vec![1.0; 10_000], "data": format!("a,b\n{}", "1,2\n".repeat(200)), "n_folds": 150}),
            "150 folds times 10000 penalties",
        ),
        (json!({"l2_coef": 1.0}), "l2_coef: invalid type: floating point `1.0`"),
        (json!({"fit_intercept": "yes"}), "fit_intercept: invalid type: string \"yes\""),
        (json!({"loss": "median"}), "loss: unknown variant `median`"),
        (json!({"seed": -1}), "seed: invalid value: integer `-1`"),
        (json!({"name": "x".repeat(2_000)}), "name: at most 1000 characters"),
        (json!({"l2_coeff": [1.0]}), "unknown field `l2_coeff`"),
        (json!({"l2_coeff": [1.0]}), "`fit_intercept`, `l2_coef`, `seed`"),
        (json!({"data": 5}), "data: invalid type: integer `5`"),
        (json!({"data": ""}), "data: the CSV is empty"),
        (json!({"data": "a\n1\n2\n3\n4\n"}), "no feature"),
        (json!({"data": "a,b\n1,2\n3,x\n5,6\n7,8\n"}), "data: line 3, column \"b\": \"x\" is not a number"),
        (json!({"data": "a,b\n1,2\n\n3,\n5,6\n7,8\n"}), "data: line 4, column \"b\": the cell is empty"),
        (json!({"data": "a,b\n1,2\n3,NaN\n5,6\n7,8\n"}), "line 3, column \"b\": \"NaN\" is not a finite number"),
        (json!({"data": "a,b\n1,2\n3,inf\n5,6\n7,8\n"}), "line 3, column \"b\": \"inf\" is not a finite number"),
        (json!({"data": "a,b\n1,2\n3\n5,6\n7,8\n"}), "line 3 has 1 cell, but the header has 2 columns"),
        (json!({"data": "a,b\n1,2\n3,4,5\n5,6\n7,8\n"}), "line 3 has more cells than the header, which has 2 columns"),
        (json!({"data": "a,b,b\n1,2,3\n"}), "columns 2 and 3 are both called \"b\""),
        (json!({"data": "a,\n1,2\n"}), "column 2 has no name"),
        (json!({"data": "a,b\u{0}\n1,2\n"}), "column 2 holds a NUL character"),
        (json!({"data": "a,b\n1,2\n3,4\n"}), "n_folds asks for at least 4 rows, but the CSV has 2"),
        (json!({"data": "a,b\n"}), "n_folds asks for at least 4 rows, but the CSV has 0"),
        (
            json!({"data": "a,b,w\n1,2,1\n3,4,1\n\n5,6,-1\n7,8,1\n", "weight_column": "w"}),
            "line 5, column \"w\": a weight must be at least 0, but is -1.0",
        ),
        (
            json!({"data": "a,b,f\n1,2,1\n3,4,1\n", "fold_column": "f", "n_folds": null}),
            "fold_column: column \"f\" must have at least 2 distinct values, but has 1",
        ),
    ];
    for (fields, sentence) in cases {
        let error = service.post("/train", &with(example(), fields.clone())).error(422);
        assert!(error.contains(sentence), "{fields}: {error}");
    }
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn bad_queries_are_refused_with_the_parameter_and_nothing_is_stored() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let cases = [
        ("/train", "missing field `target`"),
        ("/train?target=a&folds=4", "unknown field `folds`"),
        ("/train?target=a&n_folds=x", "n_folds: invalid type: string \"x\""),
        ("/train?target=a&l2_coef=1,x", "l2_coef[1]: invalid type: string \"x\""),
        ("/train?target=a&l2_coef=", "l2_coef[0]: invalid type: string \"\""),
        ("/train?target=%ff", "the query string is not valid UTF-8"),
        ("/train?target=a&target=b", "\"target\": given twice"),
        ("/train?target=a&data=a", "data: the CSV is the body"),
        ("/train?target=%61&n_folds=9", "n_folds asks for at least 9 rows, but the CSV has 2"),
    ];
    for (path, sentence) in cases {
        let error = service.post_as("text/csv", path, "a,b\n1,2\n3,4\n").error(422);
        assert!(error.contains(sentence), "{path}: {error}");
    }
    let error = service.post("/train?target=a", &example()).error(422);
    assert!(error.contains("query parameters go with a text/csv body"), "{error}");
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn bodies_that_are_not_what_they_say_are_refused() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&str, &[u8], u16, &str); 12] = [
        ("application/json", b"{\"data\": ", 400, "not valid JSON"),
        ("application/json", b"", 400, "not valid JSON"),
        ("application/json", b"{} {}", 422, "missing field `target`"),
        ("application/json", deep.as_bytes(), 422, "must be a JSON object"),
        ("application/json", b"[1, ", 400, "not valid JSON"),
        ("application/json", b"[\"a,b\", \"a\"]", 422, "must be a JSON object"),
        ("application/json", b"\"text\"", 422, "expected an object"),
        ("application/json", b"{\"data\": \"\xff\"}", 400, "not valid UTF-8: byte 11 (line 1)"),
        ("text/csv", b"a,b\n1,2\n3,\xfe\n", 400, "not valid UTF-8: byte 11 (line 3)"),
        ("text/csv; charset=latin1", b"a,b\n1,2\n", 415, "application/json or text/csv"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "application/json or text/csv"),
        ("multipart/form-data; boundary=x", b"--x--", 415, "application/json or text/csv"),
    ];
    for (content_type, body, status, sentence) in cases {
        // What is wrong with the parameters comes before what is wrong with the rows.
        let path = if content_type == "text/csv" { "/train?target=a" } else { "/train" };
        let error = service.post_as(content_type, path, body).error(status);
        assert!(error.contains(sentence), "{content_type}: {error}");
    }
    let error = service.send("POST", "/train", &[], b"a,b").error(415);
    assert!(error.contains("names none"), "{error}");
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn nesting_and_numbers_beyond_reason_are_refused() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let deep = format!("{{\"data\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let unknown = format!("{{\"x\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for body in [deep.as_str(), unknown.as_str(), "{\"l2_coef\": [1e999]}", "{\"n_folds\": 99999999999999999999999}"] {
        let reply = service.post_as("application/json", "/train", body);
        assert!([400, 422].contains(&reply.status), "{reply:?}");
        let sentence = reply.error(reply.status);
        assert!(sentence.len() < 400, "{sentence}");
    }
    let twice = service.post_as("application/json", "/train", "{\"target\": \"a\", \"target\": \"b\"}").error(422);
    assert!(twice.contains("duplicate field `target`"), "{twice}");
}

#[test]
fn an_error_does_not_repeat_all_of_a_clients_data() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    for (field, value) in
        [("n_folds", "9".repeat(100_000)), ("loss", "x".repeat(100_000)), (&"k".repeat(100_000), "1".into())]
    {
        let error = service.post("/train", &with(example(), json!({field: value}))).error(422);
        assert!(error.len() < 600, "{error}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_with_the_limit() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_LIMITS", "{train=\"20 kB\", predict=\"1 kB\"}").serve();
    let request = |size: usize| with(example(), json!({"name": "x".repeat(size)}));
    for (path, size, limit) in
        [("/train", 20_001, "20kB (20000 bytes)"), ("/model/1/predict", 1_001, "1kB (1000 bytes)")]
    {
        let error = service.post(path, &request(size)).error(413);
        assert!(error.contains(limit), "{error}");
    }
    // Just below it is read, and judged by what it says.
    let error = service.post("/train", &request(19_000)).error(422);
    assert!(error.contains("name: at most"), "{error}");
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn names_that_databases_might_mind_come_back_as_they_were() {
    let database = Database::new();
    let service = Service::start(&database);
    let long = "long ".repeat(2_000);
    let names =
        ["say \"hi\"", "back\\slash", "it's; DROP TABLE models;--", "\u{1f600}", "__proto__", "a.b[0]", long.trim()];
    let header: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let row =
        |i: i32| (0..names.len()).map(|j| format!("{}", (i * 7 + j as i32 * 3) % 11)).collect::<Vec<_>>().join(",");
    let rows: Vec<String> = (0..12).map(|i| format!("{i},{}", row(i))).collect();
    let csv = format!("y,{}\n{}\n", header.join(","), rows.join("\n"));
    let model = service.train(&json!({"data": csv, "target": "y", "l2_coef": [1.0]}));

    let coef = model["model"]["coef"].as_object().unwrap();
    assert_eq!(coef.len(), names.len());
    for name in names {
        assert!(coef.contains_key(name), "{name}");
    }
    let result = service.predict(&model["model_id"], &csv);
    assert_eq!(result.as_array().unwrap().len(), 12);
}
