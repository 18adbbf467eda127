//! `GET /metrics`: figures for Prometheus, of the process and of the jobs in the database.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Database, Reply, Server, Service, Settings, example, long_job, wait_until, with};

/// What the service exposes, after a look by Prometheus' own tool.
#[track_caller]
fn metrics(service: &Service) -> String {
    let reply = service.get("/metrics");
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; version=0.0.4"));
    check(&reply);
    reply.body
}

/// `promtool check metrics` finds no fault with names, types and helps.
#[track_caller]
fn check(reply: &Reply) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/promtool");
    let mut command = Command::new(&program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}; script/setup test installs it", program.display()));
    child.stdin.take().unwrap().write_all(reply.body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{}", reply.body);
}

/// The value of a series, as it is written.
#[track_caller]
fn value<'m>(metrics: &'m str, series: &str) -> &'m str {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("there is no {series}:\n{metrics}"))
}

#[track_caller]
fn number(metrics: &str, series: &str) -> f64 {
    value(metrics, series).parse().unwrap()
}

#[test]
fn the_figures_tell_what_became_of_the_jobs() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let fresh = metrics(&service);
    for series in [
        "ridgeline_jobs{status=\"queued\"}",
        "ridgeline_jobs_ended_total{status=\"failed\"}",
        "ridgeline_job_wait_seconds_count",
        "ridgeline_leases_lost_total",
        "ridgeline_oldest_queued_job_age_seconds",
        "ridgeline_received_rows_total{purpose=\"prediction\"}",
    ] {
        assert_eq!(value(&fresh, series), "0", "{series}");
    }

    let trained = service.submit(&example());
    let overflow = "a,b\n1e300,1e-300\n-1e300,2e-300\n3e299,-1e-300\n1e300,5e-300\n";
    let failed = service.submit(&with(example(), json!({"data": overflow, "l2_coef": [0.0]})));
    let cancelled = service.submit(&example());
    service.post(&format!("/model/{cancelled}/cancel"), &json!({})).ok(202);
    let deleted = service.submit(&example());
    assert_eq!(service.send("DELETE", &format!("/model/{deleted}"), &[], b"").status, 204);
    let before = metrics(&service);
    assert_eq!(value(&before, "ridgeline_jobs{status=\"queued\"}"), "2");
    assert!(number(&before, "ridgeline_oldest_queued_job_age_seconds") > 0.0);
    assert_eq!(value(&before, "ridgeline_jobs_ended_total{status=\"cancelled\"}"), "2");
    assert_eq!(value(&before, "ridgeline_received_rows_total{purpose=\"training\"}"), "22");

    let _worker = Settings::new(&database.url).worker();
    assert_eq!(service.ended(failed)["status"], "failed");
    service.predict(&json!(trained), "b,c\n1,2\n3,4\n");
    // Of another process on the same database the jobs are the same, and the requests its own.
    let other = metrics(&Service::without_workers(&database));
    let after = metrics(&service);
    for (series, expected) in [
        ("ridgeline_jobs{status=\"queued\"}", "0"),
        ("ridgeline_oldest_queued_job_age_seconds", "0"),
        ("ridgeline_jobs_ended_total{status=\"trained\"}", "1"),
        ("ridgeline_jobs_ended_total{status=\"failed\"}", "1"),
        ("ridgeline_job_wait_seconds_count", "2"),
        ("ridgeline_job_wait_seconds_bucket{le=\"+Inf\"}", "2"),
        ("ridgeline_job_training_seconds_count{status=\"trained\"}", "1"),
        ("ridgeline_job_training_seconds_bucket{status=\"failed\",le=\"30000\"}", "1"),
        ("ridgeline_leases_lost_total", "0"),
    ] {
        assert_eq!((value(&after, series), value(&other, series)), (expected, expected), "{series}");
    }
    assert!(number(&after, "ridgeline_job_wait_seconds_sum") > 0.0);
    assert!(number(&after, "ridgeline_job_training_seconds_sum{status=\"trained\"}") > 0.0);
    let predicted = "ridgeline_received_rows_total{purpose=\"prediction\"}";
    assert_eq!((value(&after, predicted), value(&other, predicted)), ("2", "0"));
    assert!(number(&after, "ridgeline_received_bytes_total{purpose=\"prediction\"}") >= 12.0);
}

#[test]
fn requests_are_counted_by_method_route_and_status() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    service.submit(&example());
    service.submit(&example());
    service.model(1);
    service.get("/model/99").error(404);
    service.get("/no/such/path").error(404);
    service.get("/model/x/y/z").error(404);
    let text = metrics(&service);
    for (series, expected) in [
        ("ridgeline_http_requests_total{method=\"POST\",route=\"/train\",status=\"202\"}", "2"),
        ("ridgeline_http_requests_total{method=\"GET\",route=\"/model/{id}\",status=\"200\"}", "1"),
        ("ridgeline_http_requests_total{method=\"GET\",route=\"/model/{id}\",status=\"404\"}", "1"),
        ("ridgeline_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"}", "2"),
        ("ridgeline_http_request_duration_seconds_count{method=\"GET\",route=\"/model/{id}\"}", "2"),
        ("ridgeline_http_request_duration_seconds_bucket{method=\"POST\",route=\"/train\",le=\"+Inf\"}", "2"),
        (&format!("ridgeline_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), "1"),
        ("ridgeline_database_up", "1"),
        ("ridgeline_pool_connections{state=\"max\"}", "16"),
        ("ridgeline_upload_bytes{state=\"held\"}", "0"),
        ("ridgeline_upload_bytes{state=\"max\"}", "1073741824"),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(number(&text, "ridgeline_pool_connections{state=\"open\"}") >= 1.0);
    assert!(number(&text, "process_resident_memory_bytes") > 1e6);
    assert!(!text.contains("such"), "{text}");
}

#[test]
fn a_worker_that_was_lost_is_counted() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&long_job());
    let settings = || Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 1);
    let mut lost = settings().worker();
    wait_until("the job is taken", || service.model(id)["status"] == "training");
    assert_eq!(value(&metrics(&service), "ridgeline_jobs{status=\"training\"}"), "1");
    lost.kill();
    let mut next = settings().worker();
    wait_until("the job is taken again", || service.model(id)["attempt"] == 2);
    // Handed back, not lost.
    next.stop();
    assert_eq!(service.model(id)["status"], "queued");
    let text = metrics(&service);
    assert_eq!(value(&text, "ridgeline_leases_lost_total"), "1");
    assert_eq!(value(&text, "ridgeline_job_wait_seconds_count"), "1");
}

#[test]
fn without_a_database_the_process_still_tells_its_own_figures() {
    let mut server = Server::start();
    let service = Settings::new(server.url()).set("ROCKET_WORKERS", 0).serve();
    service.submit(&example());
    assert_eq!(value(&metrics(&service), "ridgeline_jobs{status=\"queued\"}"), "1");
    server.stop();
    let text = metrics(&service);
    assert_eq!(value(&text, "ridgeline_database_up"), "0");
    assert_eq!(value(&text, "ridgeline_received_rows_total{purpose=\"training\"}"), "6");
    assert!(!text.contains("ridgeline_jobs"), "{text}");
    service.get("/health/ready").error(503);
    server.restart();
    wait_until("the figures of the jobs are back", || {
        service.get("/metrics").body.contains("ridgeline_jobs{status=\"queued\"} 1\n")
    });
}

#[test]
fn replies_that_are_held_back_do_not_count_as_slow_ones() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&example());
    service.send("GET", &format!("/model/{id}"), &[("Prefer", "wait=1")], b"").ok(200);
    let seconds = "ridgeline_http_request_duration_seconds_sum{method=\"GET\",route=\"/model/{id}\"}";
    let mut after = String::new();
    wait_until("the request is counted", || {
        after = metrics(&service);
        after.contains(seconds)
    });
    assert!(number(&after, seconds) < 0.9, "{after}");
}
