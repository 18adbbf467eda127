//! Uploads, downloads and predictions that are larger than what is held of them.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Database, Raw, Service, Settings, wait_until};

/// Rows of 16 columns, of which one depends on the others: 26 MB of cells, more than is held before the first are stored.
const N_ROWS: usize = 200_000;

fn large_csv() -> String {
    let mut csv = String::from("y");
    (1..16).for_each(|column| write!(csv, ",x{column}").unwrap());
    csv.push('\n');
    let mut state = 1_u32;
    for row in 0..N_ROWS {
        let mut sum = row % 7;
        let start = csv.len();
        for column in 1..16 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = state >> 28;
            sum += value as usize * column;
            write!(csv, ",{value}").unwrap();
        }
        csv.insert_str(start, &sum.to_string());
        csv.push('\n');
    }
    csv
}

fn rows_of(csv: &str) -> &str {
    csv.split_once('\n').unwrap().1
}

fn chunks(database: &Database) -> usize {
    database.value("SELECT count(*) FROM dataset_chunks").parse().unwrap()
}

#[test]
fn a_large_csv_is_stored_while_it_arrives_and_comes_back_as_it_was() {
    let database = Database::new();
    let service = Service::start(&database);
    let csv = large_csv();
    let path = "/train?target=y&n_folds=3&seed=1&l2_coef=0,1&name=streamed";
    let model = service.post_as("text/csv", path, &csv).ok(202)["model_id"].as_i64().unwrap();
    assert!(chunks(&database) > 4);
    let streamed = service.ended(model);
    assert_eq!((&streamed["status"], &streamed["metrics"]["n_rows"]), (&json!("trained"), &json!(N_ROWS)));

    // The same rows in a JSON body, and packed: the same bits.
    let body = json!({"data": csv, "target": "y", "n_folds": 3, "seed": 1, "l2_coef": [0, 1]});
    let from_json = service.train(&body);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(csv.as_bytes()).unwrap();
    let headers = [("Content-Type", "text/csv"), ("Content-Encoding", "gzip")];
    let reply = service.send("POST", path, &headers, &packed.finish().unwrap()).ok(202);
    let from_gzip = service.ended(reply["model_id"].as_i64().unwrap());
    for other in [from_json, from_gzip] {
        for part in ["model", "cv_results", "metrics"] {
            assert_eq!(other[part], streamed[part]);
        }
    }

    let id = &streamed["dataset_id"];
    let document = service.get(&format!("/dataset/{id}")).ok(200);
    assert_eq!((&document["n_rows"], &document["columns"][15]["count"]), (&json!(N_ROWS), &json!(N_ROWS)));
    let by_format = service.get(&format!("/dataset/{id}?format=csv"));
    assert_eq!((by_format.status, by_format.header("content-type")), (200, "text/csv; charset=utf-8"));
    let numbers = |csv: &str| {
        csv.lines()
            .skip(1)
            .flat_map(|row| row.split(',').map(|cell| cell.parse::<f64>().unwrap()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert_eq!(by_format.body.lines().next(), csv.lines().next());
    assert!(numbers(&by_format.body) == numbers(&csv));
    let by_type = service.send("GET", &format!("/dataset/{id}"), &[("Accept", "text/csv")], &[]);
    assert!(by_type.body == by_format.body);
    assert!(service.get(&format!("/dataset/{id}?format=xml")).error(422).contains("format: expected one of json, csv"));
    assert!(service.get("/dataset/99?format=csv").error(404).contains("dataset 99"));
}

#[test]
fn what_is_wrong_at_the_end_of_a_large_csv_is_refused_with_its_line_and_leaves_nothing() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let csv = large_csv();
    let last = N_ROWS + 2;
    let zeros = ",0".repeat(14);
    let cases: [(&str, Vec<u8>, u16, String); 6] = [
        ("", format!("1,x{zeros}\n").into(), 422, format!("data: line {last}, column \"x1\": \"x\" is not a number")),
        ("", "1,2\n".into(), 422, format!("data: line {last} has 2 cells, but the header has 16 columns")),
        ("", format!("\n\"1\n\",2{zeros},\n").into(), 422, format!("data: line {} has more cells", last + 1)),
        (
            "",
            format!("1,\"2{zeros}\n").into(),
            422,
            format!("line {last}, column 2: the quote that opens the cell is never closed"),
        ),
        ("", b"1,\xff\n".to_vec(), 400, format!("the body is not valid UTF-8: byte {} (line {last})", csv.len() + 3)),
        (
            "&weight_column=x1",
            format!("1,-2{zeros}\n").into(),
            422,
            format!("data: line {last}, column \"x1\": a weight must be at least 0, but is -2.0"),
        ),
    ];
    for (more, tail, status, sentence) in cases {
        let body = [csv.as_bytes(), &tail].concat();
        let error = service.post_as("text/csv", &format!("/train?target=y{more}"), body).error(status);
        assert!(error.contains(&sentence), "{error}");
        assert_eq!(database.stored_rows(), "0 0 0");
    }
    // What the parameters alone are wrong about is known before the rows are.
    let error = service.post_as("text/csv", "/train?target=z", &csv).error(422);
    assert!(error.contains("target: the CSV has no column \"z\""), "{error}");
    // What only all of the rows tell, at the end.
    let many = format!("/train?target=y&n_folds={}", N_ROWS + 1);
    let error = service.post_as("text/csv", &many, &csv).error(422);
    assert!(error.contains(&format!("but the CSV has {N_ROWS}")), "{error}");
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn a_mistake_behind_hundreds_of_megabytes_is_told_as_in_a_small_csv() {
    const BLOCKS: usize = 64;
    let database = Database::new();
    let service = Service::without_workers(&database);
    // Rows of 4 KiB that become 16 bytes.
    let block = format!("1,{:0>4093}\n", 2).repeat(1_024);
    let mistakes =
        [("1,z\n", "column \"b\": \"z\" is not a number"), ("1,2,3\n", "has more cells"), ("1,\n", "is empty")];
    for (mistake, words) in mistakes {
        let small = service.post_as("text/csv", "/datasets", format!("a,b\n{mistake}")).error(422);
        assert!(small.contains("line 2") && small.contains(words), "{small}");
        let mut client = Raw::connect(&service);
        let length = 4 + BLOCKS * block.len() + mistake.len();
        let head =
            format!("POST /datasets HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {length}\r\n\r\n");
        assert!(client.send(head) && client.send("a,b\n") && (0..BLOCKS).all(|_| client.send(&block)));
        assert!(client.send(mistake));
        let line = format!("line {}", BLOCKS * 1_024 + 2);
        assert_eq!(client.reply().error(422), small.replace("line 2", &line));
    }
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn a_client_that_goes_away_leaves_nothing_and_nobody_sees_what_had_arrived() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let csv = large_csv();
    let head = format!(
        "POST /datasets HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\r\n",
        3 * csv.len()
    );
    let mut client = Raw::connect(&service);
    assert!(client.send(head) && client.send(&csv) && client.send(rows_of(&csv)));
    wait_until("some of it is stored", || chunks(&database) > 0);
    assert_eq!(service.get("/datasets").ok(200)["datasets"], json!([]));
    assert!(service.get("/dataset/1").error(404).contains("no dataset 1"));
    assert!(service.post("/train", &json!({"dataset_id": 1, "target": "y"})).error(404).contains("dataset 1"));
    service.send("DELETE", "/dataset/1", &[], &[]).error(404);
    drop(client);
    wait_until("nothing is stored", || database.stored_rows() == "0 0 0");
}

#[test]
fn an_upload_whose_service_was_killed_is_dropped_by_another_one() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    let csv = large_csv();
    let head = "POST /datasets HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 99999999\r\n\r\n";
    let mut client = Raw::connect(&service);
    assert!(client.send(head) && client.send(&csv) && client.send(rows_of(&csv)));
    wait_until("some of it is stored", || chunks(&database) > 0);
    service.process.kill();
    // As if its two minutes had passed.
    database.execute("UPDATE datasets SET arriving_until = now()");
    let other = Service::without_workers(&database);
    wait_until("nothing is stored", || database.stored_rows() == "0 0 0");
    other.process.expect_log("dropped 1 uploads");
}

#[test]
fn two_large_uploads_at_once_take_no_more_memory_than_what_is_held_of_them() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).serve();
    // Each cell of two characters becomes eight bytes: 2 x 320 MB.
    let csv = format!("a,b\n{}", "1,2\n".repeat(20_000_000));
    let before = service.process.peak_memory();
    std::thread::scope(|scope| {
        let post = || service.post_as("text/csv", "/datasets", &csv).ok(201);
        let uploads = [scope.spawn(post), scope.spawn(post)];
        for upload in uploads {
            let document = upload.join().unwrap();
            assert_eq!((&document["n_rows"], &document["columns"][1]["mean"]), (&json!(20_000_000), &json!(2.0)));
        }
    });
    let taken = service.process.peak_memory() - before;
    assert!(taken < 320 << 20, "{taken}");
}

#[test]
fn predictions_come_as_a_stream_that_breaks_off_at_a_mistake() {
    let database = Database::new();
    let service = Service::start(&database);
    let training = "y,x\n".to_owned() + &(0..50).map(|i| format!("{},{i}\n", f64::from(i).sqrt())).collect::<String>();
    let model =
        service.train(&json!({"data": training, "target": "y", "l2_coef": [0.1], "seed": 1}))["model_id"].clone();
    let path = format!("/model/{model}/predict");
    let rows = "17,a\n".repeat(2_200_000);
    let good = format!("x,note\n{rows}");
    let expected = service.predict(&model, "x\n17\n")[0].as_f64().unwrap();
    let send = |csv: &str| {
        service.send("POST", &path, &[("Content-Type", "text/csv"), ("Accept", "text/csv")], csv.as_bytes())
    };

    let reply = send(&good);
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, "chunked"));
    let mut lines = reply.body.lines();
    assert_eq!(lines.next(), Some("prediction"));
    assert!(lines.clone().all(|line| line.parse() == Ok(expected)));
    assert_eq!(lines.count(), 2_200_000);

    // A mistake in what is held before the reply begins has a reply of its own.
    let error = send("x\n1\nz\n").error(422);
    assert!(error.contains("data: line 3, column \"x\": \"z\" is not a number"), "{error}");

    let bad = format!("{good}z,a\n{rows}");
    let mut client = Raw::connect(&service);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nAccept: text/csv\r\nContent-Length: {}\r\n\r\n",
        bad.len()
    );
    assert!(client.send(head));
    let received = std::thread::scope(|scope| {
        let mut reader = client.reader();
        let rest = scope.spawn(move || reader.rest());
        client.send(&bad);
        rest.join().unwrap()
    });
    assert!(received.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &received[..100]);
    assert!(!received.ends_with("0\r\n\r\n"));
    let place = format!("error: data: line {}, column \"x\": \"z\" is not a number", 2_200_002);
    assert!(received.contains(&place), "{}", &received[received.len() - 200..]);
    assert_eq!(Value::from(service.get("/health/live").status), json!(200));
}
