//! Debian's nginx before the service, with the very configuration that docs/operating.md shows.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::support::{Database, Folder, Process, Service, Settings, example, generated_csv, wait_until};

const EXAMPLE: &str = include_str!("../../docs/examples/nginx.conf");
/// What nginx is installed with around that file, for a single process that stays in the foreground.
const MAIN: &str = "daemon off; master_process off; pid FOLDER/pid; error_log FOLDER/error.log;
events { worker_connections 4096; }
http {
    client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
    include FOLDER/ridgeline.conf;
}";

/// A running nginx, and a client that trusts its certificate.
struct Proxy {
    port: u16,
    client: Arc<ClientConfig>,
    _process: Process,
    // Must be the last field: it goes when nginx has stopped.
    folder: Folder,
}

impl Proxy {
    fn start(service: &Service) -> Self {
        Self::with(service, &[])
    }

    /// With further changes of the configuration.
    fn with(service: &Service, changes: &[(&str, &str)]) -> Self {
        let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/nginx");
        assert!(program.exists(), "{} is missing; script/setup test installs it", program.display());
        let folder = Folder::new();
        fs::create_dir(&folder.0).unwrap();
        let here = folder.0.display().to_string();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(folder.0.join("chain.pem"), cert.pem()).unwrap();
        fs::write(folder.0.join("key.pem"), signing_key.serialize_pem()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Only places and addresses are other ones than in the example.
        let places = [
            ("127.0.0.1:8000", service.url("").replace("http://", "")),
            ("listen 443 ", format!("listen 127.0.0.1:{port} ")),
            ("/etc/ssl/ridgeline/chain.pem", format!("{here}/chain.pem")),
            ("/etc/ssl/ridgeline/key.pem", format!("{here}/key.pem")),
            ("/var/log/nginx/ridgeline.log", format!("{here}/access.log")),
        ];
        let mut site = EXAMPLE.to_owned();
        for (old, new) in places.iter().map(|(old, new)| (*old, new.as_str())).chain(changes.iter().copied()) {
            assert_eq!(site.matches(old).count(), 1, "{old}");
            site = site.replace(old, new);
        }
        fs::write(folder.0.join("ridgeline.conf"), site).unwrap();
        fs::write(folder.0.join("nginx.conf"), MAIN.replace("FOLDER", &here)).unwrap();
        let mut command = Command::new(program);
        command.args(["-e", "error.log", "-p", &here, "-c", "nginx.conf"]);
        let process = Process::spawn(&mut command);
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
        let proxy = Self { port, client, _process: process, folder };
        wait_until("nginx takes connections", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        proxy
    }

    /// A connection over TLS.
    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.client), name).unwrap(), stream)
    }

    /// All that comes back on a connection of its own until nginx closes it, and how long that took.
    fn exchange(&self, parts: &[&[u8]]) -> (String, Duration) {
        let start = Instant::now();
        let mut connection = self.connect();
        for part in parts {
            // Who is refused early need not have taken everything.
            let _refused = connection.write_all(part);
        }
        (rest(&mut connection), start.elapsed())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("access.log")).unwrap()
    }
}

/// What comes until the other side closes, or resets, the connection.
fn rest(connection: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _end = connection.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn head(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: ridgeline.example.org\r\nConnection: close\r\n{headers}\r\n")
}

#[track_caller]
fn answered(reply: &str, status: u16) -> Value {
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
    let head = head.to_lowercase();
    assert!(head.contains("content-type: application/json"), "{reply}");
    assert!(head.contains("strict-transport-security: max-age="), "{reply}");
    let body = if head.contains("transfer-encoding: chunked") {
        body.split("\r\n").skip(1).step_by(2).collect::<Vec<_>>().concat()
    } else {
        body.to_owned()
    };
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {reply}"))
}

#[test]
fn connections_that_come_to_nothing_end_at_nginx() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let proxy = Proxy::start(&service);
    let cases: [(&[&[u8]], u64); 4] = [
        (&[], 10),
        (&[b"GET /models HT"], 10),
        (&[b"POST /train?target=a HTTP/1.1\r\nHost: x\r\nX-Long: "], 10),
        (&[b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"], 15),
    ];
    thread::scope(|scope| {
        for (parts, seconds) in cases {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut connection = proxy.connect();
                connection.write_all(&parts.concat()).unwrap();
                connection.flush().unwrap();
                let start = Instant::now();
                let reply = rest(&mut connection);
                let took = start.elapsed().as_secs_f64();
                assert!((seconds as f64 - 1.0..seconds as f64 + 5.0).contains(&took), "{parts:?}: {took} s");
                assert_eq!(reply.contains("\"live\""), seconds == 15, "{reply}");
            });
        }
    });
    // None of them has reached the service.
    assert_eq!(service.process.log().matches("access_log").count(), 1, "{}", service.process.log());
}

#[test]
fn bodies_that_stall_end_in_time_and_leave_nothing() {
    let database = Database::new();
    let start = |stall: u32| {
        let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
        settings.set("ROCKET_BODY_STALL_SECONDS", stall).serve()
    };
    let (quick, slow) = (start(1), start(600));
    let proxies = [Proxy::start(&quick), Proxy::with(&slow, &[("client_body_timeout 35s", "client_body_timeout 2s")])];
    let csv = b"a,b\n1,2\n3,4\n5,6\n7,8\n9,1\n";
    for length in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let head = head("POST", "/datasets", &format!("Content-Type: text/csv\r\n{length}"));
        let chunk = [format!("{:x}\r\n", csv.len()).as_bytes(), csv, b"\r\n"].concat();
        let body = if length.starts_with('C') { &csv[..] } else { &chunk };
        // The service says what is wrong, and where it does not, nginx ends the connection.
        let (reply, took) = proxies[0].exchange(&[head.as_bytes(), body]);
        assert_eq!(answered(&reply, 408)["code"], "timeout");
        assert!(took < Duration::from_secs(10), "{took:?}");
        let (reply, took) = proxies[1].exchange(&[head.as_bytes(), body]);
        assert!(reply.is_empty() && took < Duration::from_secs(10), "{took:?}: {reply}");
    }
    slow.process.expect_log("POST /datasets 400");
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn large_uploads_pass_without_being_stored_on_the_way_and_too_large_ones_are_refused_in_json() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_LIMITS", "{stream=\"16 MiB\", train=\"16 MiB\", predict=\"1 MiB\"}").serve();
    let proxy = Proxy::start(&service);
    let csv = generated_csv(12_000, 109);
    assert!(csv.len() > 10_000_000, "{}", csv.len());
    let upload =
        |length: usize| head("POST", "/datasets", &format!("Content-Type: text/csv\r\nContent-Length: {length}\r\n"));
    // The service has the beginning before nginx has the end.
    let before = service.process.peak_memory();
    let mut connection = proxy.connect();
    connection.write_all(upload(csv.len()).as_bytes()).unwrap();
    let (first, second) = csv.as_bytes().split_at(csv.len() - 1_000);
    connection.write_all(first).unwrap();
    wait_until("the service holds the beginning", || service.process.peak_memory() > before + 4_000_000);
    assert_eq!(fs::read_dir(proxy.folder.0.join("body")).unwrap().count(), 0);
    connection.write_all(second).unwrap();
    assert_eq!(answered(&rest(&mut connection), 201)["n_rows"], 12_000);
    // Beyond the service's limit, and beyond nginx's own.
    let (reply, _) = proxy.exchange(&[upload(17 << 20).as_bytes(), &vec![b'1'; 17 << 20]]);
    let body = answered(&reply, 413);
    assert!(body["error"].as_str().unwrap().contains("16MiB"), "{body}");
    let (reply, _) = proxy.exchange(&[upload(18 << 30).as_bytes()]);
    assert_eq!(answered(&reply, 413)["code"], "too_large");
}

#[test]
fn events_and_waiting_pass_as_they_happen_and_both_logs_agree() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let proxy = Proxy::start(&service);
    let id = service.submit(&example());
    // The first event comes while the model waits for a worker: it is not kept until the stream ends.
    let mut events = proxy.connect();
    events.write_all(head("GET", &format!("/model/{id}/events"), "").as_bytes()).unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"queued\"") {
        let mut bytes = [0; 4096];
        let n = events.read(&mut bytes).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..n]);
    }
    let body = example().to_string();
    let wait = format!("Prefer: wait=30\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let (reply, _) = thread::scope(|scope| {
        let waiting = scope.spawn(|| proxy.exchange(&[head("POST", "/train", &wait).as_bytes(), body.as_bytes()]));
        wait_until("the second job is queued", || database.value("SELECT count(*) FROM models") == "2");
        let _worker = Settings::new(&database.url).worker();
        waiting.join().unwrap()
    });
    assert_eq!(answered(&reply, 200)["status"], "trained");
    assert!(reply.to_lowercase().contains("preference-applied: wait=30"), "{reply}");
    assert!(rest(&mut events).contains("\"trained\""));
    // The client's address in nginx's log leads to the line in the service's by the id in the reply.
    let id = reply.to_lowercase().split("x-request-id: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
    service.process.expect_log(&format!("request {id}: POST /train 200"));
    wait_until("nginx has logged it", || proxy.log().contains(&id));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.starts_with("127.0.0.1 [") && line.contains("\"POST /train HTTP/1.1\" 200 "), "{line}");
}

#[test]
fn a_client_holds_no_more_than_its_share_of_the_connections() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let proxy = Proxy::start(&service);
    let path = format!("/model/{}/events", service.submit(&example()));
    let listen = || {
        let mut connection = proxy.connect();
        connection.write_all(head("GET", &path, "").as_bytes()).unwrap();
        connection.flush().unwrap();
        connection
    };
    let mut held: Vec<_> = (0..200).map(|_| listen()).collect();
    for connection in &mut held {
        connection.read_exact(&mut [0; 12]).unwrap();
    }
    assert_eq!(answered(&rest(&mut listen()), 503)["code"], "unavailable");
    held.clear();
    wait_until("there is room again", || {
        let mut connection = listen();
        let mut status = [0; 12];
        connection.read_exact(&mut status).unwrap();
        status == *b"HTTP/1.1 200"
    });
}

#[test]
fn what_nginx_answers_itself_is_json_too() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    let proxy = Proxy::start(&service);
    let smuggled = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases = [
        ("no HTTP", "nonsense\r\n\r\n".to_owned()),
        ("a long path", head("GET", &format!("/{}", "a".repeat(50_000)), "")),
        ("a long header", head("GET", "/models", &format!("X-A: {}\r\n", "a".repeat(50_000)))),
        ("two lengths", head("POST", "/datasets", "Content-Length: 5\r\nContent-Length: 6\r\n") + smuggled),
        (
            "length and chunks",
            head("POST", "/datasets", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + smuggled,
        ),
    ];
    for (what, request) in cases {
        let (reply, _) = proxy.exchange(&[request.as_bytes()]);
        assert_eq!(answered(&reply, 400)["code"], "bad_request", "{what}");
        assert_eq!(reply.matches("HTTP/1.1 ").count(), 1, "{what}: {reply}");
    }
    service.process.kill();
    let (reply, _) = proxy.exchange(&[head("GET", "/models", "").as_bytes()]);
    assert_eq!(answered(&reply, 503)["code"], "unavailable");
    assert!(reply.contains("Retry-After: 2"), "{reply}");
}
