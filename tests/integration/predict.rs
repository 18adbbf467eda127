//! `POST /model/N/predict`: values for the rows of a CSV, and why there may be none.

use serde_json::json;

use crate::support::{Database, Raw, Service, Settings, example, wait_until, with};

/// A model whose coefficients are known: y = 2 + 3 b - c, exactly.
fn exact_model(service: &Service) -> i64 {
    let csv = "y,b,c\n2,0,0\n5,1,0\n1,0,1\n4,1,1\n8,2,0\n0,0,2\n";
    let model = service.train(&json!({"data": csv, "target": "y", "n_folds": 3, "l2_coef": [0.0]}));
    model["model_id"].as_i64().unwrap()
}

#[test]
fn columns_are_matched_by_name_and_extra_ones_ignored() {
    let database = Database::new();
    let service = Service::start(&database);
    let path = format!("/model/{}/predict", exact_model(&service));
    let bodies = [
        "b,c\n1,2\n3,4\n",
        "c,b\n2,1\n4,3\n",
        "note,c,y,b\nhello,2,,1\n\"x,\ny\",4,NA,3\n",
        "\u{feff}c , b\r\n2,1\r\n\r\n4,3",
    ];
    for body in bodies {
        let result = service.post(&path, &json!({"data": body})).ok(200)["result"].clone();
        let values: Vec<f64> = result.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        assert_eq!(values.len(), 2, "{body}");
        for (value, expected) in values.iter().zip([3.0, 7.0]) {
            assert!((value - expected).abs() < 1e-12, "{body}: {value}");
        }
    }
}

#[test]
fn csv_goes_in_and_comes_out() {
    let database = Database::new();
    let service = Service::start(&database);
    let path = format!("/model/{}/predict", exact_model(&service));
    let json = service.post_as("text/csv", &path, "b,c\n0.1,2\n3,4e-5\n").ok(200);
    let headers = |accept| [("Content-Type", "text/csv"), ("Accept", accept)];
    for accept in ["text/csv", "text/csv, application/json;q=0.5", "text/*", "*/*;q=0.1, text/csv;q=0.9"] {
        let reply = service.send("POST", &path, &headers(accept), b"b,c\n0.1,2\n3,4e-5\n");
        assert!(reply.header("content-type").starts_with("text/csv"), "{reply:?}");
        let mut lines = reply.body.lines();
        assert_eq!(lines.next(), Some("prediction"));
        let values: Vec<f64> = lines.map(|line| line.parse().unwrap()).collect();
        assert_eq!(json!(values), json["result"]);
    }
    for accept in ["*/*", "application/json", "application/*, text/csv;q=0.5", "text/csv;q=0, */*", "image/png"] {
        assert_eq!(service.send("POST", &path, &headers(accept), b"b,c\n0.1,2\n3,4e-5\n").ok(200), json, "{accept}");
    }
}

#[test]
fn no_rows_give_no_predictions() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = exact_model(&service);
    assert_eq!(service.predict(&json!(id), "b,c\n"), json!([]));
    assert_eq!(service.predict(&json!(id), "c,b"), json!([]));
}

#[test]
fn the_id_may_be_repeated_in_the_body_if_it_is_the_same() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = exact_model(&service);
    let path = format!("/model/{id}/predict");
    service.post(&path, &json!({"data": "b,c\n1,2\n", "model_id": id})).ok(200);
    let error = service.post(&path, &json!({"data": "b,c\n1,2\n", "model_id": id + 1})).error(422);
    assert!(error.starts_with("model_id: "), "{error}");
}

#[test]
fn bad_rows_are_refused_with_their_place() {
    let database = Database::new();
    let service = Service::start(&database);
    let path = format!("/model/{}/predict", exact_model(&service));
    let cases = [
        ("", "the CSV is empty"),
        ("b\n1\n", "the CSV lacks the column \"c\""),
        ("x,y\n1,2\n", "the CSV lacks the columns \"b\", \"c\""),
        ("b,c\n1,2\n1,x\n", "line 3, column \"c\": \"x\" is not a number"),
        ("b,c,d\n1,,x\n", "line 2, column \"c\": the cell is empty"),
        ("b,c\n1,nan\n", "line 2, column \"c\": \"nan\" is not a finite number"),
        ("b,c\n1\n", "line 2 has 1 cell"),
        ("b,c,b\n1,2,3\n", "columns 1 and 3 are both called \"b\""),
        ("b,c\n1,2\n\n1e308,-1e308\n", "line 4: the prediction overflows"),
    ];
    for (csv, sentence) in cases {
        let error = service.post(&path, &json!({"data": csv})).error(422);
        assert!(error.starts_with("data: ") && error.contains(sentence), "{csv:?}: {error}");
    }
    let error = service.post(&path, &json!({"data": "b,c\n", "rows": 1})).error(422);
    assert!(error.contains("unknown field `rows`"), "{error}");
    service.post(&path, &json!({})).error(422);
    service.post_as("application/json", &path, "nonsense").error(400);
    service.post_as("text/plain", &path, "b,c\n").error(415);
    service.post("/model/99/predict", &json!({"data": "b,c\n1,2\n"})).error(404);
    service.post("/model/x/predict", &json!({"data": "b,c\n1,2\n"})).error(404);
}

#[test]
fn a_row_has_the_same_prediction_and_the_same_mistake_wherever_it_stands() {
    let database = Database::new();
    let service = Service::start(&database);
    let names: Vec<String> = (0..20).map(|column| format!("x{column}")).collect();
    let names = names.join(",");
    // As people write them: short and long, with and without a point or an exponent.
    let cell = |row: usize, column: usize| {
        let value = (row as f64 * 0.7 + column as f64 * 1.3).sin();
        match (row + 3 * column) % 7 {
            0 => format!("{value}"),
            1 => format!("{value:e}"),
            2 => format!("{:.0}", 1e6 * value),
            3 => format!("{value:.9}"),
            _ => format!("{value:.5}"),
        }
    };
    let row = |row: usize| (0..20).map(|column| cell(row, column)).collect::<Vec<_>>().join(",") + "\n";
    let rows: Vec<String> = (0..30_000).map(row).collect();
    let training: String = (0..200).map(|i| format!("{},{}", i % 13, rows[i])).collect();
    let training = json!({"data": format!("y,{names}\n{training}"), "target": "y", "l2_coef": [0.01], "seed": 1});
    let id = service.train(&training)["model_id"].clone();
    let path = format!("/model/{id}/predict");
    let csv = |rows: &[String]| format!("{names}\n{}", rows.concat());
    let whole = csv(&rows);
    assert!(whole.len() > 4 << 20, "it is cut into several pieces");
    let all = service.post_as("text/csv", &path, &whole).ok(200)["result"].as_array().unwrap().clone();
    assert_eq!(all.len(), rows.len());
    assert_eq!(service.predict(&id, &whole), json!(all));
    for size in [1, 2, 3, 5, 8, 13, 100, 9_999] {
        let n = rows.len().min(size * 20);
        let parts = rows[..n].chunks(size).map(|part| service.post_as("text/csv", &path, csv(part)).ok(200));
        let parts: Vec<_> = parts.flat_map(|part| part["result"].as_array().unwrap().clone()).collect();
        assert_eq!(parts, all[..n], "{size} rows in a request");
    }

    for bad in [0, 1, 5_000, 12_345, 17_000, 29_998, 29_999] {
        let line = bad + 2;
        let mut rows = rows.clone();
        rows[bad].replace_range(..1, "x");
        let body = csv(&rows);
        for error in [service.post_as("text/csv", &path, &body), service.post(&path, &json!({"data": body}))] {
            let error = error.error(422);
            assert!(error.contains(&format!("data: line {line}, column \"x0\": \"x")), "{error}");
        }
    }
}

#[test]
fn a_large_json_body_is_read_as_it_arrives_and_judged_as_a_whole() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = exact_model(&service);
    let path = format!("/model/{id}/predict");
    let rows = "1,2\n3,4e-5\n".repeat(300_000);
    let expected = service.post_as("text/csv", &path, format!("b,c\n{rows}")).ok(200);
    assert_eq!(expected["result"].as_array().unwrap().len(), 600_000);
    let escaped = rows.replace('\n', "\\n");
    let send = |path: &str, body: &str| service.post_as("application/json", path, body);
    let good = format!(r#"{{"data": "\u0062,c\n{escaped}", "model_id": {id}}}"#);
    let swapped = format!("{{ \"model_id\" : {id}.0,\r\n\t\"data\" : \"b,c\\r\\n{escaped}\" }}\n");
    // Its text is found only by those who decode all of it.
    let disguised = format!(r#"{{"d\u0061ta": "b,c\n{escaped}"}}"#);
    for body in [&good, &swapped, &disguised] {
        assert_eq!(send(&path, body).ok(200), expected, "{}", &body[..40]);
        let headers = [("Content-Type", "application/json"), ("Accept", "text/csv")];
        assert_eq!(service.send("POST", &path, &headers, body.as_bytes()).body.lines().count(), 600_001);
    }

    let bad = good.replacen("\\u0062", "b", 1).replace("b,c", "b,c\\n1,x");
    let bad = bad.as_str();
    assert!(send(&path, bad).error(422).contains("data: line 2, column \"c\": \"x\" is not a number"));
    // Whatever is wrong with the body comes first.
    let end = bad.len() - 1;
    let cases = [
        (bad[..end].to_owned(), 400, "EOF while parsing an object"),
        (format!("{bad}]"), 400, "trailing characters"),
        (bad.replace("3,4e-5\\n\"", "3,4e-5\n\""), 400, "control character"),
        (bad.replace("3,4e-5\\n\"", "3,4e-5\\z\""), 400, "invalid escape"),
        (bad.replace(&format!(": {id}}}"), ": 77}"), 422, "model_id: is 77 in the body"),
        (format!("{}, \"data\": \"b,c\"}}", &bad[..end]), 422, "duplicate field `data`"),
        (format!("{}, \"rows\": 1}}", &bad[..end]), 422, "unknown field `rows`"),
        (format!("[{bad}]"), 422, "must be a JSON object"),
    ];
    for (body, status, sentence) in cases {
        let error = send(&path, &body).error(status);
        assert!(error.contains(sentence), "{sentence}: {error}");
        let error = send("/model/99/predict", &body).error(status);
        assert!(error.contains(sentence), "{sentence}: {error}");
    }
    send("/model/99/predict", &good.replace(&format!(": {id}}}"), ": 99}")).error(404);
    let mut bytes = bad.as_bytes().to_vec();
    let at = bytes.len() - 100;
    bytes[at] = 0xff;
    let error = service.send("POST", &path, &[("Content-Type", "application/json")], &bytes).error(400);
    assert!(error.contains(&format!("the body is not valid UTF-8: byte {} (line 1)", at + 1)), "{error}");
}

#[test]
fn a_client_that_goes_away_while_its_rows_arrive_leaves_nothing_held() {
    let database = Database::new();
    let service = Service::start(&database);
    let path = format!("/model/{}/predict", exact_model(&service));
    let rows = "1,2\n".repeat(1 << 20);
    let holds_nothing = || service.get("/metrics").body.contains("ridgeline_upload_bytes{state=\"held\"} 0\n");
    for (content_type, start) in [
        ("text/csv", format!("b,c\n{rows}")),
        ("application/json", format!("{{\"data\": \"b,c\\n{}", rows.replace('\n', "\\n"))),
    ] {
        let mut client = Raw::connect(&service);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            2 * start.len()
        );
        assert!(client.send(head) && client.send(&start));
        wait_until("some of it has arrived", || !holds_nothing());
        drop(client);
        wait_until("nothing is held", holds_nothing);
        assert_eq!(service.post_as("text/csv", &path, "b,c\n").ok(200)["result"], json!([]));
    }
}

#[test]
fn a_model_that_is_not_trained_says_its_status() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let queued = service.submit(&example());
    let error = service.post(&format!("/model/{queued}/predict"), &json!({"data": "b,c\n1,2\n"})).error(409);
    assert_eq!(error, format!("model {queued} is not trained: its status is queued"));

    // Finite cells whose squares are not: only the training itself can find out.
    let huge = with(
        example(),
        json!({"data": "a,b\n1e300,1e-300\n-1e300,2e-300\n3e299,-1e-300\n1e300,5e-300\n", "l2_coef": [0.0]}),
    );
    let failed = service.submit(&huge);
    let worker = Settings::new(&database.url).worker();
    let model = service.ended(failed);
    assert_eq!(model["status"], "failed", "{model}");
    let reason = model["error"].as_str().unwrap();
    let error = service.post(&format!("/model/{failed}/predict"), &json!({"data": "b\n1\n"})).error(409);
    assert_eq!(error, format!("model {failed} is not trained: its status is failed, because {reason}"));
    drop(worker);
}
