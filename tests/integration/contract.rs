//! What holds of every path: JSON, status codes, request ids.

use crate::support::{Database, Service};

#[test]
fn unknown_paths_are_not_found() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    for path in
        ["/nope", "/model", "/model/", "/model/1/2/3", "/%2e%2e/etc/passwd", "/model/../../etc/passwd", "/a%00b"]
    {
        for method in ["GET", "POST"] {
            service.send(method, path, &[("Content-Type", "application/json")], b"{}").error(404);
        }
    }
}

#[test]
fn wrong_methods_are_refused_with_the_right_ones() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let cases = [
        ("GET", "/train", "POST"),
        ("PUT", "/train", "POST"),
        ("DELETE", "/train", "POST"),
        ("OPTIONS", "/train", "POST"),
        ("POST", "/model/1", "DELETE, GET, HEAD"),
        ("PATCH", "/model/1", "DELETE, GET, HEAD"),
        ("GET", "/model/1/predict", "POST"),
        ("DELETE", "/model/1/cancel", "POST"),
        ("POST", "/models", "GET, HEAD"),
        ("DELETE", "/datasets", "GET, HEAD, POST"),
        ("PUT", "/dataset/1", "DELETE, GET, HEAD"),
        ("POST", "/health/live", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("QUERY", "/models", "GET, HEAD"),
        ("BREW", "/model/1", "DELETE, GET, HEAD"),
    ];
    for (method, path, allowed) in cases {
        let reply = service.send(method, path, &[], b"");
        reply.error(405);
        assert_eq!(reply.header("allow"), allowed, "{method} {path}");
    }
    let reply = service.send("HEAD", "/train", &[], b"");
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
}

#[test]
fn health_and_index_answer() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    assert_eq!(service.get("/health/live").ok(200)["status"], "live");
    assert_eq!(service.get("/health/ready").ok(200)["status"], "ready");
    assert!(service.get("/").ok(200)["calls"].as_object().unwrap().contains_key("POST /train"));
    assert_eq!(service.send("HEAD", "/health/live", &[], b"").status, 200);

    database.execute("DELETE FROM __diesel_schema_migrations WHERE version > '20261123000001'");
    let reply = service.get("/health/ready");
    assert!(reply.error(503).contains("migrations"), "{reply:?}");
    assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
}

#[test]
fn a_decent_request_id_is_kept_and_others_are_replaced() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id_of = |given: &str| {
        service.send("GET", "/health/live", &[("X-Request-Id", given)], b"").header("x-request-id").to_owned()
    };
    assert_eq!(id_of("trace-1.a_B"), "trace-1.a_B");
    for bad in ["a b", "x\" status=200", &"x".repeat(65), ""] {
        let id = id_of(bad);
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    service.process.expect_log("request trace-1.a_B: GET /health/live 200 in");
}

#[test]
fn every_event_is_one_line_with_time_level_and_target() {
    let database = Database::new();
    let service = Service::start(&database);
    service.train(&crate::support::example());
    service.get("/model/%0Aforged").error(404);
    service.get("/nope").error(404);
    service.process.expect_log("model 1: trained in");
    service.process.expect_log("GET /nope 404");
    let log = service.process.log();
    for line in log.lines() {
        let parts: Vec<&str> = line.split_whitespace().take(3).collect();
        assert!(parts[0].len() == 24 && parts[0].starts_with("20") && parts[0].ends_with('Z'), "{line}");
        assert!(["ERROR", "WARN", "INFO"].contains(&parts[1]), "{line}");
        assert!(parts[2].contains("ridgeline") || parts[2].contains("rocket"), "{line}");
    }
    for words in [
        "listening on http://127.0.0.1:",
        "model 1: training starts, attempt 1, 6 rows, 3 columns",
        "model 1: trained in",
    ] {
        assert_eq!(log.lines().filter(|line| line.contains(words)).count(), 1, "{words}\n{log}");
    }
}

#[test]
fn a_form_cannot_pretend_another_method() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&crate::support::example());
    let paths =
        ["/model/1", "/dataset/1", "/model/1/cancel", "/model/1/predict", "/train", "/datasets", "/models", "/"];
    let forms = ["application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8"];
    for path in paths {
        for form in forms {
            // A form is a POST, and nothing in it changes that.
            let [_first, plain] = [(); 2].map(|()| service.post_as(form, path, "x=1").status);
            for method in ["delete", "DELETE", "get", "put", "patch", "head", "options", "post"] {
                for body in
                    [format!("_method={method}"), format!("_method={method}&x=1"), format!("%5Fmethod={method}")]
                {
                    assert_eq!(service.post_as(form, path, &body).status, plain, "{path}: {body}");
                }
            }
        }
    }
    assert_eq!((id, database.stored_rows().as_str()), (1, "1 1 1"));
}

#[test]
fn parameters_that_a_call_does_not_know_are_refused() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&crate::support::example())["model_id"].clone();
    let dataset = service.post("/datasets", &serde_json::json!({"data": "a,b\n1,2\n"})).ok(201)["dataset_id"].clone();
    let calls = [
        ("GET", "/".to_owned()),
        ("GET", "/health/live".to_owned()),
        ("GET", "/health/ready".to_owned()),
        ("GET", "/metrics".to_owned()),
        ("GET", "/openapi.json".to_owned()),
        ("GET", "/docs".to_owned()),
        ("GET", "/docs/start.js".to_owned()),
        ("GET", "/v2".to_owned()),
        ("GET", "/v2/health/live".to_owned()),
        ("GET", "/v2/health/ready".to_owned()),
        ("GET", format!("/v2/models/{id}")),
        ("GET", format!("/v2/models/{id}/ready")),
        ("POST", format!("/v2/models/{id}/infer")),
        ("GET", "/models".to_owned()),
        ("GET", "/datasets".to_owned()),
        ("POST", "/datasets".to_owned()),
        ("GET", format!("/dataset/{dataset}")),
        ("GET", format!("/model/{id}")),
        ("GET", format!("/model/{id}/events")),
        ("POST", format!("/model/{id}/predict")),
        ("POST", format!("/model/{id}/cancel")),
        ("DELETE", format!("/model/{id}")),
        ("DELETE", format!("/dataset/{dataset}")),
    ];
    for (method, path) in &calls {
        let error =
            service.send(method, &format!("{path}?fromat=onnx"), &[("Content-Type", "text/csv")], b"").error(422);
        assert!(error.starts_with("unknown parameter \"fromat\"") || path == "/datasets", "{method} {path}: {error}");
        assert!(error.contains("\"fromat\""), "{method} {path}: {error}");
    }
    // Nor are known ones among unknown ones, or twice.
    let cases = [
        ("?fromat=onnx", "unknown parameter \"fromat\"; known is format"),
        ("?format=onnx&x=1", "unknown parameter \"x\"; known is format"),
        ("?format=onnx&format=json", "\"format\": given twice in the query string"),
        ("?%66ormat=%ff", "\"format\": the query string is not valid UTF-8"),
    ];
    for (query, sentence) in cases {
        assert_eq!(service.get(&format!("/model/{id}{query}")).error(422), sentence);
    }
    let path = format!("/model/{id}/predict?x=1");
    let error =
        service.post(&path, &serde_json::json!({"data": "b,c\n".to_owned() + &"1,2\n".repeat(500_000)})).error(422);
    assert_eq!(error, "unknown parameter \"x\": the call takes none in its query string");
    // None of all this has done anything, and an empty query is none.
    service.get(&format!("/model/{id}?")).ok(200);
    service.get(&format!("/dataset/{dataset}?")).ok(200);
}
