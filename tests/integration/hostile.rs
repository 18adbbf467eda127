//! What no well-meaning client sends: broken framing, smuggled requests, second spellings of paths, bodies that are made to
//! take time and memory. Each is answered with a clear 4xx, quickly and in bounded memory, and the service goes on.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Database, Raw, Service, Settings, example, generated_csv, wait_until};

/// What would be answered if the bytes behind a request were taken for the next one.
const SMUGGLED: &str = "GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const ROWS: &str = "a,b\n1,2\n3,4\n5,6\n7,8\n9,1\n2,2\n";

/// All that comes back on a connection of its own until the service closes it.
fn exchange(service: &Service, request: impl AsRef<[u8]>) -> String {
    let mut client = Raw::connect(service);
    client.send(request);
    client.rest()
}

fn status(reply: &str) -> u16 {
    reply.split(' ').nth(1).unwrap_or_else(|| panic!("no reply: {reply:?}")).parse().unwrap()
}

fn n_replies(replies: &str) -> usize {
    replies.matches("HTTP/1.1 ").count()
}

/// A dataset is stored by anything that is taken.
fn post(headers: &str, body: &str) -> String {
    format!("POST /datasets HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n{headers}\r\n\r\n{body}")
}

#[test]
fn broken_framing_is_refused_and_nothing_behind_it_is_read() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let n = ROWS.len();
    let chunk = format!("{n:x}\r\n{ROWS}\r\n0\r\n\r\n");
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    let cases = [
        ("two lengths", post(&format!("Content-Length: {n}\r\nContent-Length: 5"), ROWS)),
        ("a list of lengths", post(&format!("Content-Length: {n}, {n}"), ROWS)),
        ("a signed length", post(&format!("Content-Length: +{n}"), ROWS)),
        ("a negative length", post("Content-Length: -1", ROWS)),
        ("a hexadecimal length", post("Content-Length: 0x1e", ROWS)),
        ("a length beyond 64 bits", post("Content-Length: 99999999999999999999999", ROWS)),
        ("the largest length", post(&format!("Content-Length: {}", u64::MAX), ROWS)),
        ("a coding behind chunked", post("Transfer-Encoding: chunked, identity", &chunk)),
        ("a coding before chunked", post("Transfer-Encoding: gzip, chunked", &chunk)),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", &chunk)),
        ("an unknown coding", post("Transfer-Encoding: xchunked", &chunk)),
        ("a vertical tab before chunked", post("Transfer-Encoding: \x0bchunked", &chunk)),
        ("a blank before the colon", post("Transfer-Encoding : chunked", &chunk)),
        ("chunked in HTTP/1.0", chunked(&chunk).replace("HTTP/1.1", "HTTP/1.0")),
        ("a length in a folded line", post(&format!("X-A: b\r\n Content-Length: {n}"), ROWS)),
        ("a chunk beyond 64 bits", chunked(&format!("FFFFFFFFFFFFFFFFF\r\n{ROWS}"))),
        ("a negative chunk", chunked(&format!("-1\r\n{ROWS}"))),
        ("a chunk with 0x", chunked(&format!("0x{chunk}"))),
        ("chunks that end in LF alone", chunked(&chunk.replace("\r\n", "\n"))),
        ("a chunk longer than it says", chunked(&format!("4\r\n{ROWS}\r\n0\r\n\r\n"))),
        ("an endless chunk extension", chunked(&format!("{n:x};{}\r\n{ROWS}\r\n0\r\n\r\n", "x".repeat(100_000)))),
        ("NUL in a header", post("X-A: a\0b", "")),
        ("a carriage return in a header", post("X-A: a\rb", "")),
        ("a header without a colon", post("X-A", "")),
        ("a header without a name", post(": x", "")),
        ("a second host", post("Host: y\r\nContent-Length: 0\r\nConnection: close", "")),
        ("NUL in the path", "GET /models\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("two blanks in the request line", "GET  /models HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("tabs in the request line", "GET\t/models\tHTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a version that is none", "GET /models HTTP/1.2\r\nHost: x\r\n\r\n".to_owned()),
        ("no version", "GET /models\r\n\r\n".to_owned()),
        ("TLS on a plain port", format!("\x16\x03\x01\x02\0\x01\0\x01\u{fc}{}", "a".repeat(600))),
        ("a path of a megabyte", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20))),
        ("a path of 70 kB", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000))),
        ("a header of a megabyte", post(&format!("X-A: {}", "a".repeat(1 << 20)), "")),
        ("a thousand headers", post(&"X-A: b\r\n".repeat(1_000), "")),
    ];
    for (what, request) in cases {
        let start = Instant::now();
        let replies = exchange(&service, format!("{request}{SMUGGLED}"));
        assert!([400, 414, 431].contains(&status(&replies)), "{what}: {replies}");
        assert_eq!(n_replies(&replies), 1, "{what}: {replies}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
    }
    // The longest address is as long as the description says.
    for (n, expected) in [(65_534, 404), (65_535, 414)] {
        let request = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "a".repeat(n - 1));
        assert_eq!(status(&exchange(&service, request)), expected, "{n} bytes");
    }
    assert_eq!(database.stored_rows(), "0 0 0");
    service.submit(&example());
}

#[test]
fn what_is_odd_but_plain_is_read_in_one_way() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let n = ROWS.len();
    let chunk = format!("{n:x}\r\n{ROWS}\r\n0\r\n\r\n");
    // With both, the chunks count, and the connection ends behind them: RFC 9112, 6.1.
    for headers in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"]
    {
        let replies = exchange(&service, post(headers, &format!("{chunk}{SMUGGLED}")));
        assert_eq!((status(&replies), n_replies(&replies)), (201, 1), "{replies}");
        assert!(replies.contains("\"n_rows\":6"), "{replies}");
    }
    // The same length twice is one length; a trailer is no header, and what stands behind it is the next request.
    let same = format!("Content-Length: {n}\r\nContent-Length: {n}");
    let trailer = chunk.replace("0\r\n\r\n", "0\r\nContent-Length: 5\r\n\r\n");
    for request in [post(&same, ROWS), post("Transfer-Encoding: chunked", &trailer)] {
        let replies = exchange(&service, format!("{request}{SMUGGLED}"));
        assert_eq!((status(&replies), n_replies(&replies)), (201, 2), "{replies}");
    }
    // A body that no call reads is not taken for a request either.
    let with_body =
        format!("GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let replies = exchange(&service, format!("{with_body}{SMUGGLED}"));
    assert_eq!(n_replies(&replies), 2, "{replies}");
}

/// A header, and what of a body is sent after it.
type Ending = (&'static str, fn(&str) -> String);

#[test]
fn a_body_that_breaks_off_is_never_taken_for_a_whole_one() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&example())["model_id"].clone();
    let before = database.stored_rows();
    let paths = ["/datasets".to_owned(), "/train?target=a&n_folds=2".to_owned(), format!("/model/{id}/predict")];
    // Each beginning is a whole CSV by itself.
    let beginnings =
        ["", "b,c\n1,2\n", "b,c,a\n1,2,3\n4,5,6\n7,8,10\n", &generated_csv(5_000, 3).replace("y,x0,x1", "a,b,c")];
    let ends: [Ending; 4] = [
        ("Content-Length: 1000000", str::to_owned),
        ("Transfer-Encoding: chunked", |csv| format!("{:x}\r\n{csv}\r\n", csv.len())),
        ("Transfer-Encoding: chunked", |csv| format!("{:x}\r\n{csv}\r\nnonsense\r\n", csv.len())),
        ("Transfer-Encoding: chunked", |csv| format!("{:x}\r\n{csv}", csv.len() + 1)),
    ];
    for path in &paths {
        for beginning in beginnings {
            for (header, body) in ends {
                let mut client = Raw::connect(&service);
                client.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n{header}\r\n\r\n"));
                client.send(if beginning.is_empty() { String::new() } else { body(beginning) });
                client.end();
                let error = client.reply().error(400);
                assert!(error.contains("broke off"), "{path}, {} bytes, {header}: {error}", beginning.len());
            }
        }
    }
    wait_until("nothing is left of them", || database.stored_rows() == before);
}

/// A frame of HTTP/2, of the first stream.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

#[test]
fn http_2_is_not_spoken_where_a_cancelled_body_looks_like_a_whole_one() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/datasets"), ("content-type", "text/csv")];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let head: Vec<u8> = fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect();
    let mut settings = frame(4, 0, &[]);
    settings[8] = 0;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let request = [preface, settings, frame(1, 4, &head), frame(0, 0, ROWS.as_bytes())].concat();
    let mut client = Raw::connect(&service);
    client.send(request);
    client.end();
    let reply = client.rest();
    assert!(reply.is_empty() || status(&reply) == 400, "{reply}");
    service.submit(&example());
    assert_eq!(database.stored_rows(), "1 1 1");
}

#[test]
fn everything_has_one_path() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&example());
    let get = |path: &str| exchange(&service, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    assert_eq!((id, status(&get("/model/1")), status(&get("/dataset/1"))), (1, 200, 200));
    let ids = [
        "01",
        "0001",
        "00000000000000000000001",
        "+1",
        "%2b1",
        "-1",
        "%2D1",
        "1%20",
        "%091",
        "1%00",
        "1.0",
        "1e0",
        "0x1",
        "1;x",
        "1%3F",
        "1%2f",
        "1%2Fpredict",
        "%EF%BC%91",
        "%ff",
        "%zz",
        "2147483648",
        "4294967297",
        "9223372036854775808",
        "18446744073709551617",
        "..",
        "%2e%2e",
        "%252e",
        "%2e%2e%2fmodels",
        "..%2f1",
        "",
    ];
    for noun in ["model", "dataset", "v2/models"] {
        for id in ids {
            let reply = get(&format!("/{noun}/{id}"));
            assert!(status(&reply) == 404 && reply.contains("\"not_found\""), "{noun} {id:?}: {reply}");
        }
    }
    for path in [
        "//model/1",
        "/model//1",
        "///models",
        "/models//",
        "/./models",
        "/../models",
        "/%2e/models",
        "/%2e%2e/models",
        "/model%2f1",
        "/x/../models",
        "/MODEL/1",
        "/models;x",
        "/models%00",
        "/models%20",
        "/%2fmodels",
    ] {
        let reply = get(path);
        assert!(status(&reply) == 404 && reply.contains("\"not_found\""), "{path}: {reply}");
    }
    for query in
        ["limit=%2b5", "limit=05", "limit=-1", "after=%2b1", "after=-1", "after=1.0", "limit=1&limit=2", "%00=1", "="]
    {
        let reply = get(&format!("/models?{query}"));
        assert!(status(&reply) == 422 && reply.contains("\"invalid\""), "{query}: {reply}");
    }
    let deleted = exchange(&service, "DELETE //model/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&deleted), 404);
    service.process.expect_log("DELETE //model/1 404");
    service.model(1);
}

/// A service that may be sent 256 MiB.
struct Target {
    service: Service,
    _database: Database,
    /// The peak so far was allowed to be this high.
    most: Cell<u64>,
}

impl Target {
    fn new() -> Self {
        let database = Database::new();
        let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 1);
        let service = settings.set("ROCKET_LIMITS", "{train=\"256 MiB\", predict=\"256 MiB\"}").serve();
        service.train(&example());
        Self { service, _database: database, most: Cell::new(0) }
    }

    /// Posts a body that must be refused in little time and in no more memory than `copies` of it and a little.
    #[track_caller]
    fn refuses(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>, copies: u64, words: &str) {
        let body = body.as_ref();
        let start = Instant::now();
        let reply = self.service.post_as(content_type, path, body);
        assert!((400..500).contains(&reply.status), "{words}: {reply:?}");
        let error = reply.error(reply.status);
        assert!(error.contains(words) && error.len() < 500, "{words}: {error}");
        let (took, peak) = (start.elapsed(), self.service.process.peak_memory());
        assert!(took < Duration::from_secs(20), "{words}: {took:?}");
        self.most.set(self.most.get().max(copies * body.len() as u64 + (96 << 20)));
        assert!(peak < self.most.get(), "{words}: {peak} bytes, expected {} at most", self.most.get());
    }

    fn goes_on(&self) {
        self.service.train(&example());
        assert_eq!(self.service.predict(&json!(1), "b,c\n1,2\n").as_array().unwrap().len(), 1);
    }
}

const MEGABYTE: usize = 1 << 20;

#[test]
fn tables_out_of_all_proportion_are_refused_in_little_memory() {
    let target = Target::new();
    let csv = |body: String, words: &str| target.refuses("/train?target=a", "text/csv", body, 1, words);
    let names = (0..1_000_000).map(|i| format!("c{i}")).collect::<Vec<_>>().join(",");
    csv(names + "\n1\n", "the header has more than 100000 columns");
    csv(format!("a,b\n{}\n", "1,".repeat(MEGABYTE)), "line 2 has more cells than the header, which has 2 columns");
    csv(
        format!("a,b\n1,\"{}", "\"\"".repeat(4 * MEGABYTE)),
        "line 2, column 2: the quote that opens the cell is never closed",
    );
    csv(
        "a,b\n\n\"1\n".to_owned() + &"2\n".repeat(MEGABYTE),
        "line 3, column 1: the quote that opens the cell is never closed",
    );
    csv("\n".repeat(8 * MEGABYTE), "the CSV is empty");
    csv(format!("a,b\n1,0.{}x\n", "0".repeat(8 * MEGABYTE)), "line 2, column \"b\": \"0.000");
    // One line of 200 MB: a name, a number, many cells, an open quote.
    let too_long = |line| format!("line {line}: the row that begins here is longer than 67108864 bytes");
    csv("x".repeat(200 * MEGABYTE), &too_long(1));
    csv(format!("a,b\n1,{}", "1".repeat(200 * MEGABYTE)), &too_long(2));
    csv("1,".repeat(100 * MEGABYTE), &too_long(1));
    csv(format!("a,b\n1,\"{}", "1,2\n".repeat(50 * MEGABYTE)), &too_long(2));
    target.goes_on();
}

#[test]
fn json_out_of_all_proportion_is_refused_in_little_memory() {
    let target = Target::new();
    let json = |body: String, words: &str| target.refuses("/train", "application/json", body, 2, words);
    let many = 8 * MEGABYTE;
    json(format!("{{\"data\":{}", "[".repeat(many)), "data: invalid type: sequence, expected a string");
    json("{\"a\":".repeat(many / 4), "unknown field");
    json("[".repeat(many), "not valid JSON");
    json(format!("{{\"target\": \"a\", \"l2_coef\": [{}1], \"data\": \"a\"}}", "1,".repeat(many)), "l2_coef");
    json(format!("{{\"n_folds\": {}}}", "1".repeat(many)), "n_folds: number out of range");
    json(format!("{{\"n_folds\": 1{}}}", "e9".repeat(many / 2)), "not valid JSON");
    json(format!("{{\"{}\": 1}}", "k".repeat(many)), "unknown field");
    json(" ".repeat(many), "not valid JSON");
    json(format!("{{\"data\": \"{}\", \"target\": \"a\"}}", "\\n".repeat(many)), "the CSV is empty");
    json(format!("{{\"data\": \"{}", "x".repeat(many)), "not valid JSON");
    json("{\"data\": \"\\ud800\", \"target\": \"a\"}".to_owned(), "not valid JSON");
    let infer = |body: String, words: &str| target.refuses("/v2/models/1/infer", "application/json", body, 2, words);
    let fields = (0..MEGABYTE).map(|i| format!("\"{i:x}\":0")).collect::<Vec<_>>().join(",");
    infer(format!("{{\"parameters\": {{{fields}}}, \"inputs\": []}}"), "more than 1000 fields");
    let input = |shape: &str, data: &str| {
        format!(
            "{{\"inputs\": [{{\"name\": \"input\", \"datatype\": \"FP64\", \"shape\": [{shape}], \"data\": [{data}]}}]}}"
        )
    };
    infer(input(&("1,".repeat(many) + "1"), ""), "inputs[0].shape: the list has more than 8 elements");
    infer(input(&format!("{0},{0}", usize::MAX), "1"), "inputs[0].shape: is too large");
    infer(input("1, 2", &("[],".repeat(many / 2) + "[]")), "inputs[0].data");
    infer(input("1, 2", &"[".repeat(many)), "nested too deeply");
    target.goes_on();
}

#[test]
fn forms_out_of_all_proportion_are_refused_in_little_time() {
    let target = Target::new();
    let form = |body: String, words: &str| {
        target.refuses("/datasets", "multipart/form-data; boundary=X", body, 1, words);
    };
    let file = "--X\r\nContent-Disposition: form-data; name=\"file\"\r\n";
    let many = 32 * MEGABYTE;
    let long_head = "the head of a part of the form is longer than 65536 bytes";
    form("a".repeat(many), long_head);
    form(format!("--X\r\nContent-Disposition: form-data; name=\"{}", "a".repeat(many)), long_head);
    form(format!("{file}{}", "X-A: b\r\n".repeat(many / 8)), long_head);
    form(format!("{file}\r\na\n1\n\r\n--X\r\n{}", "b".repeat(many)), long_head);
    form(format!("{file}\r\n{}", "\r\n--".repeat(many / 4)), "is not the multipart/form-data that it says");
    form(format!("{file}\r\n{}\r\n--X--", "1,".repeat(many / 2)), "the header has more than 100000 columns");
    target.goes_on();
}

#[test]
fn a_body_that_is_announced_to_be_endless_is_refused_without_waiting_for_it() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let start = Instant::now();
    let reply = exchange(&service, post(&format!("Content-Length: {}", i64::MAX), ROWS));
    assert!(status(&reply) == 413 && reply.contains("\"too_large\""), "{reply}");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}
