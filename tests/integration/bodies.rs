//! Request bodies: gzip, limits of size, pace and memory.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Database, Raw, Reply, Service, Settings, example, generated_csv, wait_until, with};

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn post_encoded(service: &Service, path: &str, content_type: &str, encoding: &str, body: &[u8]) -> Reply {
    service.send("POST", path, &[("Content-Type", content_type), ("Content-Encoding", encoding)], body)
}

#[test]
fn gzip_bodies_are_read_as_what_they_hold() {
    let database = Database::new();
    let service = Service::start(&database);
    let request = with(example(), json!({"seed": 5}));
    let plain = service.train(&request);
    let csv = request["data"].as_str().unwrap().as_bytes();
    let (head, tail) = csv.split_at(csv.len() / 2);
    let bodies = [
        ("gzip", "application/json", "/train", gzip(request.to_string().as_bytes())),
        ("GZip", "text/csv", "/train?target=a&n_folds=4&l2_coef=1,10,100&seed=5", gzip(csv)),
        // Two members, one after the other, are one text.
        ("x-gzip", "text/csv", "/train?target=a&n_folds=4&l2_coef=1,10,100&seed=5", [gzip(head), gzip(tail)].concat()),
    ];
    for (encoding, content_type, path, body) in bodies {
        let reply = post_encoded(&service, path, content_type, encoding, &body).ok(202);
        let model = service.ended(reply["model_id"].as_i64().unwrap());
        assert_eq!((&model["model"], &model["cv_results"]), (&plain["model"], &plain["cv_results"]), "{encoding}");
    }
    let path = format!("/model/{}/predict", plain["model_id"]);
    let rows = generated_csv(20_000, 1).replace("y,x0", "b,c");
    let expected = service.post_as("text/csv", &path, &rows).ok(200);
    assert_eq!(post_encoded(&service, &path, "text/csv", "gzip", &gzip(rows.as_bytes())).ok(200), expected);
    assert_eq!(
        service
            .send("POST", &path, &[("Content-Type", "text/csv"), ("Content-Encoding", "identity")], rows.as_bytes())
            .ok(200),
        expected
    );
}

#[test]
fn what_is_not_the_gzip_that_it_says_is_refused() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let whole = gzip(example().to_string().as_bytes());
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes
    };
    let n = whole.len();
    let cases = [
        (vec![], "nothing"),
        (whole[..1].to_vec(), "cut in the header"),
        (whole[..n / 2].to_vec(), "cut in the middle"),
        (whole[..n - 8].to_vec(), "without checksum"),
        (whole[..n - 1].to_vec(), "a byte short"),
        (flipped(0), "no magic number"),
        (flipped(n / 2), "corrupt in the middle"),
        (flipped(n - 8), "a wrong checksum"),
        (flipped(n - 2), "a wrong size"),
        ([whole.as_slice(), b"trailing"].concat(), "text behind it"),
        (example().to_string().into_bytes(), "no gzip at all"),
    ];
    for (body, why) in cases {
        let reply = post_encoded(&service, "/train", "application/json", "gzip", &body);
        assert!(reply.error(400).contains("gzip"), "{why}: {reply:?}");
    }
    for encoding in ["br", "deflate", "zstd", "gzip, gzip", "compress", "*"] {
        let reply = post_encoded(&service, "/train", "application/json", encoding, &whole);
        assert!(reply.error(415).contains(&format!("Content-Encoding {encoding:?}")), "{reply:?}");
        assert_eq!(reply.header("accept-encoding"), "gzip");
    }
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn a_zip_bomb_is_too_large_in_little_memory() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_LIMITS", "{stream=\"16 MiB\", predict=\"1 MiB\"}").serve();
    let before = service.process.peak_memory();
    let bomb = gzip(&vec![b'1'; 64 << 20]);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    for (path, content_type, limit) in
        [("/train?target=a", "text/csv", "16MiB"), ("/model/1/predict", "application/json", "1MiB")]
    {
        let error = post_encoded(&service, path, content_type, "gzip", &bomb).error(413);
        assert!(error.contains(limit), "{error}");
    }
    // Blocks that hold nothing: the compressed bytes are limited as well.
    let mut hollow = gzip(b"")[..10].to_vec();
    hollow.extend([0, 0, 0, 0xff, 0xff].repeat(300_000));
    post_encoded(&service, "/model/1/predict", "application/json", "gzip", &hollow).error(413);
    let grown = service.process.peak_memory() - before;
    assert!(grown < 48 << 20, "{grown} bytes");
}

#[test]
fn a_zip_bomb_does_not_keep_others_waiting() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_ASYNC_THREADS", 1);
    let service = settings.set("ROCKET_LIMITS", "{predict=\"64 MiB\"}").serve();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b' '; 80 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    thread::scope(|scope| {
        let start = Instant::now();
        let (service, bomb) = (&service, &bomb);
        let bombing = scope.spawn(move || {
            post_encoded(service, "/model/1/predict", "application/json", "gzip", bomb).error(413);
            start.elapsed()
        });
        let mut longest = Duration::ZERO;
        while !bombing.is_finished() {
            let asked = Instant::now();
            service.get("/health/live").ok(200);
            longest = longest.max(asked.elapsed());
        }
        let took = bombing.join().unwrap();
        assert!(longest * 5 < took, "somebody waited for {longest:?} of {took:?}");
    });
}

#[test]
fn a_body_that_stalls_or_crawls_is_given_up() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_BODY_STALL_SECONDS", 1);
    let service = settings.set("ROCKET_BODY_RATE", "1 kB").serve();
    let head = |length: &str, encoding: &str| {
        format!("POST /train?target=a HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n{encoding}{length}\r\n\r\n")
    };
    let gzipped = &gzip(b"a,b\n1,2\n3,4\n")[..20];
    let stalls: [(String, &[u8]); 3] = [
        (head("Content-Length: 1000", ""), b"a,b\n1,2\n3,4\n5,6\n7,8\n"),
        (head("Transfer-Encoding: chunked", ""), b"14\r\na,b\n1,2\n3,4\n5,6\n7,8\n\r\n"),
        (head("Content-Length: 1000", "Content-Encoding: gzip\r\n"), gzipped),
    ];
    thread::scope(|scope| {
        for (head, body) in stalls {
            let service = &service;
            scope.spawn(move || {
                let mut client = Raw::connect(service);
                client.send([head.as_bytes(), body].concat());
                let start = Instant::now();
                let reply = client.reply();
                let error = reply.error(408);
                let bytes = 20;
                assert!(
                    error.starts_with(&format!("the body stalled after {bytes} bytes: it must not pause for 1 s")),
                    "{error}"
                );
                assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
                assert_eq!((reply.header("connection"), client.rest().as_str()), ("close", ""));
            });
        }
        // A byte at a time never pauses for long, but brings less than a kilobyte a second.
        scope.spawn(|| {
            let mut client = Raw::connect(&service);
            client.send(head("Content-Length: 1000", ""));
            let mut bytes = b"a,b\n".iter().chain(b"1,2\n".iter().cycle());
            while client.send([*bytes.next().unwrap()]) {
                thread::sleep(Duration::from_millis(100));
                if service.process.log().contains("408") && service.process.log().matches(" 408 in").count() == 4 {
                    break;
                }
            }
            client.reply().error(408);
        });
    });
    assert_eq!(database.stored_rows(), "0 0 0");
    // A body that pauses, but not for long, is taken.
    let mut client = Raw::connect(&service);
    let csv = example()["data"].as_str().unwrap().to_owned();
    client.send(head(&format!("Content-Length: {}", csv.len()), ""));
    let (first, second) = csv.split_at(20);
    client.send(first);
    thread::sleep(Duration::from_millis(300));
    client.send(second);
    client.reply().ok(202);
}

/// A CSV of about `size` bytes that is refused for its second line: nothing is stored.
fn refused_csv(size: usize) -> String {
    format!("a,b\n1,x\n{}", "1,2\n".repeat(size / 4))
}

#[test]
fn large_bodies_share_a_limit_and_small_ones_pass() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_LIMITS", "{train=\"1 MiB\", predict=\"1 MiB\", uploads=\"1 MiB\"}").serve();
    let large = refused_csv(500_000);
    let post = || service.post_as("text/csv", "/train?target=a", &large);
    assert!(post().error(422).contains("line 2"));

    let mut client = Raw::connect(&service);
    let held = refused_csv(800_000);
    client.send(format!(
        "POST /train?target=a HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\r\n",
        held.len()
    ));
    client.send(&held[..700_000]);
    let holds = format!("ridgeline_upload_bytes{{state=\"held\"}} {}\n", held.len());
    wait_until("the large body on its way has taken its room", || service.get("/metrics").body.contains(&holds));
    let reply = post();
    assert!(reply.error(503).contains("1MiB"), "{reply:?}");
    assert_eq!(reply.json()["code"], "too_many_uploads");
    assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    // The same of a body that does not say how large it is, and of one that does not look it.
    let chunked = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let mut unannounced = Raw::connect(&service);
    unannounced.send(
        "POST /train?target=a HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    unannounced.send(chunked);
    unannounced.reply().error(503);
    post_encoded(&service, "/train?target=a", "text/csv", "gzip", &gzip(large.as_bytes())).error(503);
    service.submit(&example());
    service.post_as("text/csv", "/train?target=a", refused_csv(60_000)).error(422);

    client.send(&held[700_000..]);
    client.reply().error(422);
    wait_until("there is room again", || post().status == 422);
}

#[test]
fn a_hundred_uploads_of_ten_megabytes_at_once_take_bounded_memory() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_LIMITS", "{train=\"16 MiB\", predict=\"1 MiB\", uploads=\"80 MiB\"}").serve();
    let csv = generated_csv(10_000, 109);
    let size = csv.len();
    assert!((9_500_000..11_000_000).contains(&size), "{size}");
    let request = json!({"data": csv, "target": "y"}).to_string();
    let before = service.process.peak_memory();
    let replies: Vec<Reply> = thread::scope(|scope| {
        let uploads: Vec<_> =
            (0..100).map(|_| scope.spawn(|| service.post_as("application/json", "/train", &request))).collect();
        uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    let accepted = replies.iter().filter(|reply| reply.status == 202).count();
    for reply in replies.iter().filter(|reply| reply.status != 202) {
        reply.error(503);
        assert!(!reply.header("retry-after").is_empty());
    }
    assert!(accepted >= 5, "{accepted}");
    assert_eq!(database.value("SELECT count(*) FROM models"), accepted.to_string());
    let grown = service.process.peak_memory() - before;
    assert!(grown < 4 * (80 << 20), "{grown} bytes, {accepted} accepted");
    let _: Value = service.get("/health/live").ok(200);
}
