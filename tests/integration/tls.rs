//! HTTPS with a certificate of the test's own, and the headers that every reply carries.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::support::{Database, Folder, Process, Service, Settings, example, ridgeline, wait_until};

/// A self-signed certificate for 127.0.0.1 and its key, in two files.
pub(crate) struct Files {
    folder: Folder,
    pem: String,
}

impl Files {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        fs::create_dir(&folder.0).unwrap();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(folder.0.join("cert.pem"), cert.pem()).unwrap();
        fs::write(folder.0.join("key.pem"), signing_key.serialize_pem()).unwrap();
        Self { folder, pem: cert.pem() }
    }

    /// The file of the certificate.
    pub(crate) fn certificate(&self) -> String {
        self.folder.0.join("cert.pem").display().to_string()
    }

    /// The value of the configuration's key `tls`.
    fn setting(&self) -> String {
        let path = |name| self.folder.0.join(name).display().to_string();
        format!("{{certs={:?},key={:?}}}", path("cert.pem"), path("key.pem"))
    }

    /// A client that trusts this certificate and no other.
    fn agent(&self) -> Agent {
        let roots = RootCerts::new_with_certs(&[Certificate::from_pem(self.pem.as_bytes()).unwrap()]);
        let tls = TlsConfig::builder().root_certs(roots).build();
        let timeout = Some(Duration::from_secs(20));
        Agent::config_builder().tls_config(tls).proxy(None).timeout_global(timeout).build().into()
    }

    pub(crate) fn serve(&self, database: &Database) -> Service {
        Settings::new(&database.url).set("ROCKET_TLS", self.setting()).serve()
    }
}

fn get(agent: &Agent, url: &str) -> Value {
    agent.get(url).call().unwrap().body_mut().read_json().unwrap()
}

/// What a service with this `tls` says when it refuses to start.
fn refusal(tls: &str) -> String {
    let database = Database::new();
    let settings = [("DATABASE_URL", database.url.as_str()), ("ROCKET_TLS", tls), ("ROCKET_PORT", "0")];
    let (code, log) = Process::spawn(ridgeline(&["serve"]).envs(settings)).outcome();
    assert_eq!(code, Some(1), "{log}");
    log
}

#[test]
fn a_model_is_trained_and_predicted_from_over_tls() {
    let (database, files) = (Database::new(), Files::new());
    let service = files.serve(&database);
    let agent = files.agent();
    assert!(service.url("").starts_with("https://127.0.0.1:"), "{}", service.url(""));
    let mut reply = agent.post(service.url("/train")).send_json(example()).unwrap();
    assert_eq!(reply.headers()["strict-transport-security"], "max-age=31536000");
    let id = reply.body_mut().read_json::<Value>().unwrap()["model_id"].clone();
    let url = service.url(&format!("/model/{id}"));
    wait_until("the model is trained", || get(&agent, &url)["status"] == "trained");
    let rows = json!({"data": "b,c\n1,2\n"});
    let mut reply = agent.post(format!("{url}/predict")).send_json(rows).unwrap();
    assert_eq!(reply.body_mut().read_json::<Value>().unwrap()["result"].as_array().unwrap().len(), 1);

    // Whoever trusts another certificate gets nowhere.
    let stranger = Files::new().agent().get(&url).call();
    assert!(stranger.unwrap_err().to_string().to_lowercase().contains("certificate"));
}

#[test]
fn plain_http_and_silence_on_the_tls_port_hold_nobody_up() {
    let (database, files) = (Database::new(), Files::new());
    let service = Settings::new(&database.url)
        .set("ROCKET_WORKERS", 0)
        .set("ROCKET_ASYNC_THREADS", 1)
        .set("ROCKET_TLS", files.setting())
        .serve();
    let address = service.url("").replace("https://", "");
    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let start = Instant::now();
    for request in ["GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n", "\0\u{1}\u{2}garbage garbage garbage"] {
        let mut plain = TcpStream::connect(&address).unwrap();
        plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        plain.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        // A TLS alert, or nothing, and then the end: no HTTP, and no waiting.
        if let Err(error) = plain.read_to_end(&mut reply) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{request:?}");
        }
        assert!(!String::from_utf8_lossy(&reply).contains("HTTP"), "{reply:?}");
        assert_eq!(get(&files.agent(), &service.url("/health/live"))["status"], "live");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let files = Files::new();
    let missing = files.setting().replace("cert.pem", "no-such.pem");
    assert!(refusal(&missing).contains("tls") && refusal(&missing).contains("no-such.pem"), "{}", refusal(&missing));
    let swapped = files.setting().replace("key.pem", "cert.pem");
    assert!(refusal(&swapped).contains("tls"), "{}", refusal(&swapped));
    fs::write(files.folder.0.join("key.pem"), fs::read(Files::new().folder.0.join("key.pem")).unwrap()).unwrap();
    let foreign = refusal(&files.setting());
    assert!(foreign.contains("tls") && !foreign.contains("PRIVATE KEY"), "{foreign}");
}

#[test]
fn paths_in_a_file_are_relative_to_it() {
    let (database, files) = (Database::new(), Files::new());
    let path = files.folder.0.join("Rocket.toml");
    let text = format!(
        "[default]\ndatabase_url = {:?}\nport = 0\nworkers = 0\ntls = {{ certs = \"cert.pem\", key = \"key.pem\" }}\n",
        database.url
    );
    fs::write(&path, text).unwrap();
    let mut process = Process::spawn(ridgeline(&["serve"]).env("ROCKET_CONFIG", &path));
    let url = process.wait_for_line("listening on ");
    assert_eq!(get(&files.agent(), &format!("{url}/health/ready"))["status"], "ready");
}

#[test]
fn every_reply_forbids_to_keep_guess_run_and_frame_it() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&example())["model_id"].clone();
    let csv = [("Content-Type", "text/csv"), ("Accept", "text/csv")];
    let replies = [
        service.get("/"),
        service.get("/health/ready"),
        service.get("/models"),
        service.get(&format!("/model/{id}")),
        service.send("POST", &format!("/model/{id}/predict"), &csv, b"b,c\n1,2\n"),
        service.get("/nope"),
        service.get("/train"),
        service.post("/train", &json!({})),
        service.get("/model/99"),
        service.send("DELETE", &format!("/model/{id}"), &[], b""),
    ];
    for reply in replies {
        assert_eq!(reply.header("cache-control"), "no-store", "{reply:?}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{reply:?}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{reply:?}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{reply:?}");
        assert!(reply.header("content-security-policy").contains("default-src 'none'"), "{reply:?}");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin", "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), "", "{reply:?}");
        assert_eq!(reply.header("strict-transport-security"), "", "over plain HTTP: {reply:?}");
    }
}
