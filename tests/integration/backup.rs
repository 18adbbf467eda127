//! Data at rest: a dump is a backup, and migrations keep what is stored.

use std::process::Command;

use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use serde_json::{Value, json};

use crate::support::{Database, Server, Service, Settings, example, new_key, value, with};

/// The tables of the service.
const TABLES: &str = "SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM information_schema.tables
                      WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";

/// A digest of all the rows of each table.
fn digest(url: &str) -> Vec<(String, String)> {
    let tables = value(url, TABLES);
    let of = |table: &str| {
        value(
            url,
            &format!("SELECT concat(count(*), ' ', md5(string_agg(t::text, ' ' ORDER BY t::text))) FROM {table} t"),
        )
    };
    tables.split(' ').map(|table| (table.to_owned(), of(table))).collect()
}

#[test]
fn a_dump_restored_into_a_fresh_server_is_the_same_service() {
    let database = Database::new();
    let key = new_key(&database, "backup");
    let bearer = format!("Bearer {key}");
    let call = |service: &Service, method: &str, path: &str, body: Value| {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        service.send(method, path, &headers, if body.is_null() { String::new() } else { body.to_string() }.as_bytes())
    };
    let trained = |service: &Service, id: i64| {
        let document = call(service, "GET", &format!("/model/{id}"), Value::Null).ok(200);
        (document["status"] == "trained").then_some(document)
    };
    let rows = || json!({"data": "b,c\n0.1,2\n3,-4e-5\n"});
    let mut service = Service::start(&database);
    call(&service, "POST", "/train", with(example(), json!({"name": "änd \"quotes\""}))).ok(202);
    crate::support::wait_until("the first is trained", || trained(&service, 1).is_some());
    let document = trained(&service, 1).unwrap();
    let predictions = call(&service, "POST", "/model/1/predict", rows()).ok(200);
    service.process.stop();
    let service = Service::without_workers(&database);
    call(&service, "POST", "/train", example()).ok(202);
    call(&service, "POST", "/train", example()).ok(202);
    call(&service, "POST", "/model/3/cancel", json!({})).ok(202);
    drop(service);

    let fresh = Server::start();
    let dump = fresh.program("pg_dump");
    let dump = Command::new(dump).args(["--format=custom", "--dbname", &database.url]).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let folder = crate::support::Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let file = folder.0.join("ridgeline.dump");
    std::fs::write(&file, &dump.stdout).unwrap();
    let mut restore = Command::new(fresh.program("pg_restore"));
    restore.args(["--exit-on-error", "--no-owner", "--dbname", fresh.url()]).arg(&file);
    let restore = restore.output().unwrap();
    assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));

    assert_eq!(digest(fresh.url()), digest(&database.url));
    let service = Settings::new(fresh.url()).serve();
    assert!(!service.process.log().contains("ran the database migrations"), "{}", service.process.log());
    service.get("/models").error(401);
    assert_eq!(call(&service, "GET", "/model/1", Value::Null).ok(200), document);
    assert_eq!(call(&service, "POST", "/model/1/predict", rows()).ok(200), predictions);
    // What was waiting goes on, and numbers go on where they were.
    crate::support::wait_until("the queued job is trained", || trained(&service, 2).is_some());
    assert_eq!(call(&service, "POST", "/train", example()).ok(202)["model_id"], 4);
}

#[test]
fn packed_rows_are_plain_again_when_their_migration_is_taken_back() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    let rows: [[f64; 3]; 4] =
        [[1.5, -0.25, 1e-7], [0.0, -0.0, 12_345.67], [3.0, 0.1 + 0.2, -67_108_863.0], [1e300, 2.0, 5e5]];
    let csv = rows.map(|row| row.map(|cell| format!("{cell:?}")).join(",")).join("\n");
    service.post_as("text/csv", "/datasets", format!("a,b,c\n{csv}\n")).ok(201);
    let before = service.get("/dataset/1?format=csv").body;
    service.process.stop();
    let stored = "SELECT octet_length(cells) || ' ' || octet_length(others) FROM dataset_chunks";
    assert_eq!(database.value(stored), "48 24");

    let mut conn = database.connect();
    let files = || FileBasedMigrations::from_path("migrations").unwrap();
    while conn.revert_last_migration(files()).unwrap().to_string() != "20261125000035" {}
    let plain: String =
        rows.iter().flatten().flat_map(|cell| cell.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(database.value("SELECT encode(cells, 'hex') FROM dataset_chunks"), plain);

    // What is plain stays as it is.
    conn.run_pending_migrations(files()).unwrap();
    assert_eq!(Service::without_workers(&database).get("/dataset/1?format=csv").body, before);
}

#[test]
fn the_pages_of_a_chunk_are_in_it_again_when_their_migration_is_taken_back() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    // Packed, but for some; and doubles.
    let files = || FileBasedMigrations::from_path("migrations").unwrap();
    let download = |service: &Service| [1, 2].map(|id| service.get(&format!("/dataset/{id}?format=csv")).body);
    for every in [10, 2] {
        let cell = |i: i32| if i % every == 0 { f64::from(i).sqrt() } else { f64::from(i) / 8.0 };
        let csv: String = (0..50_000).map(|i| format!("{},{}\n", cell(2 * i + 1), cell(2 * i))).collect();
        service.post_as("text/csv", "/datasets", format!("a,b\n{csv}")).ok(201);
    }
    let before = download(&service);
    service.process.stop();
    let sizes = "SELECT string_agg(concat(octet_length(cells), ' ', octet_length(others)), ', ' ORDER BY dataset_id)
                 FROM dataset_chunks";
    let pages = "SELECT string_agg(n_pages::text, ' ' ORDER BY dataset_id) FROM dataset_chunks";
    assert_eq!(database.value(pages), "49 98");

    let mut conn = database.connect();
    while conn.revert_last_migration(files()).unwrap().to_string() != "20261126000036" {}
    assert_eq!(database.value(sizes), "400000 79744, 800000 ");
    conn.run_pending_migrations(files()).unwrap();
    assert_eq!(download(&Service::without_workers(&database)), before);
}

/// Rows for the tables as they are after a migration, which the later ones have to carry along.
const ROWS: [(&str, &str); 4] = [
    (
        "20261123000001",
        "INSERT INTO datasets (column_names, n_rows) VALUES ('[\"a\", \"b\"]', 3);
         INSERT INTO dataset_chunks VALUES (1, 0, decode(repeat('000000000000f03f0000000000000040', 3), 'hex'))",
    ),
    (
        "20261123000002",
        "INSERT INTO models (dataset_id, params) SELECT 1, '{\"target\": \"a\", \"n_folds\": 3, \"fit_intercept\": true,
             \"l2_coef\": [1.0], \"seed\": 1, \"loss\": \"mean\", \"standardize\": false}' FROM generate_series(1, 5);
         UPDATE models SET status = 'failed', error = 'x', finished_at = now() WHERE id = 2;
         UPDATE models SET status = 'cancelled', finished_at = now() WHERE id = 3;
         UPDATE models SET status = 'training', attempt = 1, started_at = now(), lease_token = 1, lease_until = now()
             WHERE id = 4;
         UPDATE models SET status = 'trained', started_at = now(), finished_at = now(), progress = 1,
             model = '{\"intercept\": 1, \"coef\": {\"b\": 2}, \"features\": [\"b\"]}',
             cv_results = '[{\"param_value\": 1, \"mean_mse\": 0, \"std_mse\": 0, \"fold_mse\": [0, 0, 0]}]',
             best = '{\"param_value\": 1, \"mean_mse\": 0}',
             metrics = '{\"r2\": 1, \"rmse\": 0, \"n_rows\": 3, \"n_features\": 1, \"n_folds\": 3, \"effective_dof\": 2}'
             WHERE id = 5",
    ),
    ("20261125000001", "INSERT INTO api_keys (name, hash, revoked_at) VALUES ('old', sha256('x'), now())"),
    (
        "20261126000036",
        "INSERT INTO datasets (column_names, n_rows, is_standalone) VALUES ('[\"a\"]', 1016, true);
         INSERT INTO dataset_chunks VALUES (2, 0, decode(repeat('00', 8), 'hex'), NULL, 1);
         INSERT INTO dataset_pages VALUES (2, 0, 0, decode(repeat('000000000000f03f', 1015), 'hex'))",
    ),
];

#[test]
fn every_migration_keeps_the_rows_of_every_table() {
    let database = Database::empty();
    let mut conn = database.connect();
    // The table of migrations says when each was run.
    let rows = || {
        let mut tables = digest(&database.url);
        tables.retain(|(table, _)| table != "__diesel_schema_migrations");
        tables
    };
    let files = || FileBasedMigrations::from_path("migrations").unwrap();
    while conn.has_pending_migration(files()).unwrap() {
        let version = conn.run_next_migration(files()).unwrap().to_string();
        if let Some((_, sql)) = ROWS.iter().find(|(after, _)| *after == version) {
            database.execute(sql);
        }
        // Once more, with the rows of the tables before it; those of its own it takes along.
        let before = rows();
        if !ROWS.iter().any(|(after, _)| *after == version) {
            conn.revert_last_migration(files()).unwrap();
            conn.run_next_migration(files()).unwrap();
        }
        assert_eq!(rows(), before, "{version}");
    }
    assert_eq!(database.stored_rows(), "2 2 5");
    assert_eq!(
        database.value("SELECT string_agg(status, ' ' ORDER BY id) FROM models"),
        "queued failed cancelled training trained"
    );

    // There has been a key, so calls need one; it adopts what was there before.
    let output =
        crate::support::ridgeline(&["key", "add", "new", "--adopt"]).env("DATABASE_URL", &database.url).output();
    let bearer = format!("Bearer {}", String::from_utf8(output.unwrap().stdout).unwrap().trim());
    let service = Service::start(&database);
    let get = |path: &str| service.send("GET", path, &[("Authorization", &bearer)], b"").ok(200);
    assert_eq!(get("/model/5")["model"], json!({"intercept": 1.0, "coef": {"b": 2.0}}));
    assert_eq!(get("/dataset/1")["columns"][1]["name"], "b");
    assert_eq!(get("/dataset/2")["columns"][0]["mean"], 1015.0 / 1016.0);
    for id in [1, 4] {
        crate::support::wait_until("the open jobs are trained", || {
            let model = get(&format!("/model/{id}"));
            assert_ne!(model["status"], "failed", "{model}");
            model["status"] == "trained"
        });
    }
    let empty: Vec<String> = database
        .value(TABLES)
        .split(' ')
        .filter(|table| database.value(&format!("SELECT count(*) FROM {table}")) == "0")
        .map(str::to_owned)
        .collect();
    assert!(empty.is_empty(), "ROWS has none for {empty:?}");
}
