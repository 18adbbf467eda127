//! The Open Inference Protocol: by Triton's own client, and by hand.

use serde_json::{Value, json};

use crate::support::{Database, Folder, Service, Settings, example, python_script};

/// y = 2 + 3 b - c, to be asked by another process.
fn exact_model(service: &Service) -> i64 {
    let csv = "y,b,c\n2,0,0\n5,1,0\n1,0,1\n4,1,1\n8,2,0\n0,0,2\n";
    let model = service.train(&json!({"data": csv, "target": "y", "n_folds": 3, "l2_coef": [0.0]}));
    model["model_id"].as_i64().unwrap()
}

#[test]
fn tritons_client_is_served_in_all_its_ways() {
    let database = Database::new();
    let trained = {
        let service = Service::start(&database);
        exact_model(&service)
    };
    let service = Service::without_workers(&database);
    let queued = service.submit(&example());
    let rows = [[0.1, 2.0], [3.0, 4e-5], [-1.0 / 3.0, 1e6], [1e-9, 7.0]];
    let csv: String = rows.iter().map(|[b, c]| format!("{b:?},{c:?}\n")).collect();
    let expected = service.predict(&json!(trained), &format!("b,c\n{csv}"));
    let folder = Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let [rows_file, expected_file] = ["rows.json", "expected.json"].map(|name| folder.0.join(name));
    std::fs::write(&rows_file, json!(rows).to_string()).unwrap();
    std::fs::write(&expected_file, expected.to_string()).unwrap();
    let address = service.url("").replace("http://", "");
    let arguments = [address.as_str(), &trained.to_string(), &queued.to_string()].map(std::path::PathBuf::from);
    let arguments: Vec<_> = arguments.iter().chain([&rows_file, &expected_file]).collect();
    assert_eq!(python_script("triton.py", &arguments), "ok\n");
}

#[test]
fn tensors_are_taken_flat_and_nested_whole_and_by_column() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = exact_model(&service);
    let path = format!("/v2/models/{id}/infer");
    let infer = |inputs: Value| service.post(&path, &json!({"id": "7", "inputs": inputs})).ok(200);
    let whole = |shape: Value, data: Value| json!([{"name": "x", "shape": shape, "datatype": "FP64", "data": data}]);
    let reply = infer(whole(json!([2, 2]), json!([1, 2, 3, 4])));
    assert_eq!((&reply["id"], &reply["model_name"]), (&json!("7"), &json!(id.to_string())));
    let output = &reply["outputs"][0];
    assert_eq!(output["data"], service.predict(&json!(id), "b,c\n1,2\n3,4\n"));
    let head = json!([output["name"], output["datatype"], output["shape"]]);
    assert_eq!(head, json!(["prediction", "FP64", [2]]));
    assert_eq!(infer(whole(json!([2, 2]), json!([[1, 2], [3, 4]]))), reply);
    let by_column = json!([
        {"name": "c", "shape": [2, 1], "datatype": "INT32", "data": [[2], [4]]},
        {"name": "b", "shape": [2], "datatype": "FP32", "data": [1.0, 3.0]},
    ]);
    assert_eq!(infer(by_column), reply);
    assert_eq!(infer(whole(json!([0, 2]), json!([])))["outputs"][0]["data"], json!([]));
}

#[test]
fn a_large_tensor_takes_no_more_memory_than_its_numbers_and_their_text() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = exact_model(&service);
    let n = 2 << 20;
    let list = "3,".repeat(n - 1) + "3";
    let body = format!(
        "{{\"inputs\": [{{\"name\": \"x\", \"shape\": [{}, 2], \"datatype\": \"FP64\", \"data\": [{list}]}}]}}",
        n / 2
    );
    let before = service.process.peak_memory();
    let reply = service.post_as("application/json", &format!("/v2/models/{id}/infer"), &body).ok(200);
    let result = reply["outputs"][0]["data"].as_array().unwrap();
    assert_eq!((result.len(), &result[n / 2 - 1]), (n / 2, &service.predict(&json!(id), "b,c\n3,3\n")[0]));
    // A number that is read takes 8 bytes, twice that while the list of them grows.
    let grown = service.process.peak_memory() - before;
    assert!(grown < 24 * n as u64, "{grown} bytes for {n} numbers");
}

#[test]
fn wrong_requests_are_refused_with_their_place() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = exact_model(&service);
    let path = format!("/v2/models/{id}/infer");
    let input = |fields: Value| {
        let input = json!({"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]});
        json!({"inputs": [crate::support::with(input, fields)]})
    };
    let cases = [
        (json!({}), "missing field `inputs`"),
        (json!({"inputs": []}), "the column \"b\" is missing"),
        (json!({"inputs": 1}), "inputs: "),
        (json!({"inputs": [], "rows": 1}), "unknown field `rows`"),
        (input(json!({"name": null})), "inputs[0]: missing field `name`"),
        (input(json!({"shape": [2, 2]})), "inputs[0].data: has 2 numbers, but the shape holds 4"),
        (input(json!({"shape": [-1, 2]})), "inputs[0].shape[0]: "),
        (
            input(json!({"shape": [2, 1]})),
            "inputs[0]: \"input\" is not a column of the model; the model takes one input \"input\" of",
        ),
        (
            input(json!({"shape": [1, 3], "data": [1, 2, 3]})),
            "inputs[0].shape: is [1, 3], but the model takes one input",
        ),
        (input(json!({"shape": [4_294_967_296_u64, 4_294_967_296_u64, 2]})), "inputs[0].shape: is too large"),
        (input(json!({"data": [[1], [2]]})), "inputs[0].data: must be a flat list, or lists nested as the shape says"),
        (input(json!({"data": [[1, 2], []]})), "inputs[0].data: must be a flat list"),
        (input(json!({"data": [1, [2]]})), "inputs[0].data: must be a flat list"),
        (input(json!({"data": [1, "x"]})), "inputs[0].data"),
        (input(json!({"data": [1, null]})), "inputs[0].data"),
        (input(json!({"data": 1})), "inputs[0].data: expected a list of numbers"),
        (input(json!({"data": null})), "inputs[0]: has neither data nor binary_data_size"),
        (input(json!({"datatype": "BYTES"})), "inputs[0].datatype: unknown variant `BYTES`"),
        (input(json!({"datatype": "INT64", "data": [1, 2.5]})), "inputs[0].data: 2.5 is not a number of the datatype"),
        (input(json!({"datatype": "UINT8", "data": [1, 256]})), "256.0 is not a number of the datatype"),
        (input(json!({"datatype": "FP32", "data": [1, 1e39]})), "inputs[0]: element 2 is not a finite number"),
        (input(json!({"data": [1e308, -1e308]})), "inputs: row 1: the prediction overflows"),
        (input(json!({"parameters": {"binary_data_size": 16}})), "inputs[0]: has both data and binary_data_size"),
    ];
    for (body, sentence) in cases {
        let error = service.post(&path, &body).error(422);
        assert!(error.contains(sentence), "{body}: {error}");
    }
    let good = input(json!({}));
    for (field, value) in [
        ("outputs", json!([{"name": "probability"}])),
        ("model_name", json!("2")),
        ("parameters", json!({"binary_data_output": "yes"})),
    ] {
        let error = service.post(&path, &crate::support::with(good.clone(), json!({field: value}))).error(422);
        assert!(error.contains(field), "{error}");
    }
    service.post_as("application/json", &path, "nonsense").error(400);
    service.post_as("text/csv", &path, "b,c\n1,2\n").error(415);
    service.get("/v2/models/99").error(404);
    service.get("/v2/models/x/ready").error(404);
    service.post("/v2/models/99/infer", &good).error(404);
    service.get(&path).error(405);
}

#[test]
fn bytes_behind_the_json_must_be_what_it_says() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = exact_model(&service);
    let head = |size: u64| {
        let parameters = json!({"binary_data_size": size});
        json!({"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "parameters": parameters}]})
            .to_string()
    };
    let post = |head: &str, bytes: &[u8], length: &str| {
        let body = [head.as_bytes(), bytes].concat();
        let headers = [("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", length)];
        service.send("POST", &format!("/v2/models/{id}/infer"), &headers, &body)
    };
    let numbers: Vec<u8> = [1.0_f64, 2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    let good = head(16);
    let reply = post(&good, &numbers, &good.len().to_string()).ok(200);
    assert_eq!(reply["outputs"][0]["data"], service.predict(&json!(id), "b,c\n1,2\n"));
    assert!(post(&good, &numbers[..15], &good.len().to_string()).error(422).contains("ends before"));
    assert!(post(&good, &[&numbers[..], &[0]].concat(), &good.len().to_string()).error(422).contains("1 bytes more"));
    assert!(post(&head(8), &numbers, &head(8).len().to_string()).error(422).contains("must be 16"));
    let infinite = [1.0_f64, f64::INFINITY].map(f64::to_le_bytes).concat();
    assert!(post(&good, &infinite, &good.len().to_string()).error(422).contains("element 2"));
    for length in ["x", "-1", "99999"] {
        post(&good, &numbers, length).error(400);
    }
}

#[test]
fn readiness_follows_the_database() {
    let mut server = crate::support::Server::start();
    let service = Settings::new(server.url()).set("ROCKET_WORKERS", 0).serve();
    assert_eq!(service.get("/v2/health/live").ok(200), json!({"live": true}));
    assert_eq!(service.get("/v2/health/ready").ok(200), json!({"ready": true}));
    assert_eq!(service.get("/v2").ok(200)["extensions"], json!(["binary_tensor_data"]));
    server.stop();
    service.get("/v2/health/live").ok(200);
    service.get("/v2/health/ready").error(503);
}
