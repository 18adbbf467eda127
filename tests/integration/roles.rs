//! The database's roles: the API and the worker do their work with the grants of docs/grants.sql, and can do no more.

use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::Connection;
use serde_json::json;

use crate::support::{Process, Server, Settings, example, generated_csv, long_job, ridgeline, wait_until, with};

const ROLES: &str = "CREATE ROLE owner LOGIN; CREATE ROLE ridgeline_api LOGIN; CREATE ROLE ridgeline_worker LOGIN;
                     CREATE DATABASE service OWNER owner";

/// A database `service` of a server of its own, and its URL for a role.
fn server_with_roles() -> (Server, impl Fn(&str) -> String) {
    let server = Server::start();
    for statement in ROLES.split(';') {
        connect(server.url()).batch_execute(statement).unwrap();
    }
    let url = server.url().replacen("/postgres?", "/service?", 1);
    (server, move |role: &str| url.replace("user=ridgeline", &format!("user={role}")))
}

fn connect(url: &str) -> PgConnection {
    PgConnection::establish(url).unwrap()
}

/// Runs a command of the owner's.
#[track_caller]
fn as_owner(url: &str, arguments: &[&str]) -> String {
    let output = ridgeline(arguments).env("DATABASE_URL", url).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn the_api_and_the_worker_work_with_their_grants_and_can_do_no_more() {
    let (_server, url) = server_with_roles();
    as_owner(&url("owner"), &["migrate"]);
    connect(&url("owner")).batch_execute(include_str!("../../docs/grants.sql")).unwrap();
    let key = as_owner(&url("owner"), &["key", "add", "client"]);

    let service = Settings::new(&url("ridgeline_api")).set("ROCKET_WORKERS", 0).serve();
    let bearer = format!("Bearer {key}");
    let call = |method: &str, path: &str, body: &str| {
        service.send(method, path, &[("Authorization", &bearer), ("Content-Type", "application/json")], body.as_bytes())
    };
    let status = |id: i32| call("GET", &format!("/model/{id}"), "").ok(200)["status"].clone();
    service.get("/health/ready").ok(200);
    let large = json!({"data": generated_csv(20_000, 3), "target": "y", "l2_coef": [1.0]});
    for (id, body) in
        [(1, example()), (2, with(example(), json!({"l2_coef": [1e308]}))), (3, long_job()), (4, example()), (5, large)]
    {
        assert_eq!(call("POST", "/train", &body.to_string()).ok(202)["model_id"], id);
    }
    call("POST", "/model/4/cancel", "{}").ok(202);
    // The third is left behind by a worker that is killed, given back by one that is stopped, and taken up by another.
    let mut worker = Settings::new(&url("ridgeline_worker")).worker();
    wait_until("the long job is taken", || status(3) == "training");
    worker.kill();
    worker = Settings::new(&url("ridgeline_worker")).worker();
    wait_until("the long job is taken again", || call("GET", "/model/3", "").ok(200)["attempt"] == 2);
    assert!(worker.stop().success());
    assert_eq!(status(3), "queued");
    worker = Settings::new(&url("ridgeline_worker")).worker();
    wait_until("all have ended", || {
        [1, 2, 3, 5].iter().all(|&id| ["trained", "failed"].contains(&status(id).as_str().unwrap()))
    });
    assert_eq!([1, 3, 4, 5].map(status), ["trained", "trained", "cancelled", "trained"]);
    call("POST", "/model/1/predict", &json!({"data": "b,c\n1,2\n"}).to_string()).ok(200);
    assert_eq!(call("GET", "/models", "").ok(200)["models"].as_array().unwrap().len(), 5);
    for id in [1, 5] {
        assert_eq!(call("DELETE", &format!("/model/{id}"), "").status, 204);
    }
    let metrics = service.get("/metrics").body;
    assert!(metrics.contains("ridgeline_jobs_ended_total{status=\"trained\"} 4"), "{metrics}");
    // What a worker writes of a job that fails.
    let failed =
        "UPDATE models SET status = 'failed', error = 'x', finished_at = now(), lease_token = NULL WHERE false";
    connect(&url("ridgeline_worker")).batch_execute(failed).unwrap();
    let mut owner = connect(&url("owner"));
    wait_until("the key's use is noted", || {
        let noted = "SELECT FROM api_keys WHERE last_used_at IS NOT NULL";
        diesel::sql_query(noted).execute(&mut owner).unwrap() == 1
    });
    for log in [service.process.log(), worker.log()] {
        assert!(!log.contains("permission denied"), "{log}");
    }

    let beyond = [
        ("ridgeline_worker", "SELECT FROM api_keys"),
        ("ridgeline_worker", "SELECT name FROM models"),
        ("ridgeline_worker", "SELECT owner FROM datasets"),
        ("ridgeline_worker", "UPDATE models SET params = '{}'"),
        ("ridgeline_worker", "UPDATE models SET owner = NULL"),
        ("ridgeline_worker", "DELETE FROM models"),
        ("ridgeline_worker", "INSERT INTO models (dataset_id, params) VALUES (1, '{}')"),
        ("ridgeline_worker", "DELETE FROM datasets"),
        ("ridgeline_worker", "UPDATE dataset_chunks SET cells = ''"),
        ("ridgeline_worker", "DELETE FROM dataset_pages"),
        ("ridgeline_worker", "CREATE TABLE t ()"),
        ("ridgeline_api", "INSERT INTO api_keys (name, hash) VALUES ('x', sha256(''))"),
        ("ridgeline_api", "UPDATE api_keys SET hash = sha256('')"),
        ("ridgeline_api", "DELETE FROM api_keys"),
        ("ridgeline_api", "UPDATE dataset_chunks SET cells = ''"),
        ("ridgeline_api", "DROP TABLE models"),
        ("ridgeline_api", "CREATE TABLE t ()"),
        ("ridgeline_api", "DELETE FROM __diesel_schema_migrations"),
    ];
    for (role, sql) in beyond {
        let error = diesel::sql_query(sql).execute(&mut connect(&url(role))).unwrap_err().to_string();
        assert!(error.contains("permission denied") || error.contains("must be owner"), "{role}: {sql}: {error}");
    }
}

#[test]
fn a_role_that_may_not_migrate_says_who_may() {
    let (_server, url) = server_with_roles();
    connect(&url("owner")).batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").unwrap();
    for command in ["serve", "worker"] {
        let settings = [("DATABASE_URL", url("ridgeline_api")), ("ROCKET_PORT", "0".to_owned())];
        let (code, log) = Process::spawn(ridgeline(&[command]).envs(settings)).outcome();
        assert!(code == Some(1) && log.contains("run `ridgeline migrate` with the role that owns"), "{log}");
    }
}
