//! The disk of the database fills up while it is at work: the service, with its private server, on a small file system.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::BigInt;
use diesel::{Connection, ConnectionResult, RunQueryDsl};
use serde_json::{Value, json};

use crate::support::{Folder, Service, Settings, example, generated_csv, long_job, wait_until};

/// Takes all the room that there is.
fn fill(path: &PathBuf) {
    let mut file = File::create(path).unwrap();
    let bytes = vec![1; 1 << 16];
    let error = loop {
        if let Err(error) = file.write_all(&bytes) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
}

/// Posts trainings until one is refused, with 503 and nothing else.
#[track_caller]
fn post_until_refused(service: &Service, request: &Value) {
    wait_until("there is no room left", || {
        let reply = service.post("/train", request);
        if reply.status == 202 {
            return false;
        }
        reply.error(503);
        assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
        true
    });
}

#[test]
fn a_full_disk_is_503_until_there_is_room_and_loses_nothing() {
    let folder = Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let data_dir = folder.0.join("data");
    let settings = Settings::new("").set("ROCKET_DATA_DIR", data_dir.display());
    let service = settings.serve_on_file_system(&folder.0, 200);
    let id = service.train(&example())["model_id"].clone();
    let expected = service.predict(&id, "b,c\n1,2\n");
    // The service alone sees the file system, and others by way of it.
    let root = PathBuf::from(format!("/proc/{}/root", service.process.id()));
    let within = |path: PathBuf| root.join(path.strip_prefix("/").unwrap());
    let filler = within(folder.0.join("filler"));
    let large = json!({"data": generated_csv(20_000, 20), "target": "y", "l2_coef": [1.0]});
    let long = service.submit(&long_job());
    wait_until("the job is taken", || service.model(long)["status"] == "training");

    // No room for rows.
    fill(&filler);
    post_until_refused(&service, &large);
    service.get("/health/live").ok(200);
    std::fs::remove_file(&filler).unwrap();
    wait_until("there is room again", || service.post("/train", &large).status == 202);
    assert_eq!(service.ended(long)["status"], "trained");

    // No room for the write-ahead log: the server itself gives up.
    let url = format!("postgres:///postgres?user=ridgeline&host={}", within(data_dir.join("socket")).display());
    let mut conn: ConnectionResult<PgConnection> = PgConnection::establish(&url);
    let conn = conn.as_mut().unwrap();
    fill(&filler);
    wait_until("no segment of the log is left", || {
        conn.batch_execute("SELECT pg_switch_wal(), txid_current()").is_err()
    });
    post_until_refused(&service, &example());
    std::fs::remove_file(&filler).unwrap();
    wait_until("the service is ready again", || service.get("/health/ready").status == 200);
    assert_eq!(service.predict(&id, "b,c\n1,2\n"), expected);
    service.train(&example());
    // Nor was anything accepted that is not there.
    wait_until("all have been trained", || {
        let models = service.get("/models?limit=1000").ok(200);
        models["models"].as_array().unwrap().iter().all(|model| model["status"] == "trained")
    });
}

#[test]
fn an_upload_that_meets_a_full_disk_is_503_and_leaves_nothing() {
    let folder = Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let settings = Settings::new("").set("ROCKET_DATA_DIR", folder.0.join("data").display());
    let service = settings.set("ROCKET_WORKERS", 0).serve_on_file_system(&folder.0, 200);
    let id = service.submit(&example());
    let root = PathBuf::from(format!("/proc/{}/root", service.process.id()));
    let filler = root.join(folder.0.join("filler").strip_prefix("/").unwrap());
    let mut reserve = File::create(&filler).unwrap();
    reserve.write_all(&vec![1; 60 << 20]).unwrap();
    drop(reserve);

    // 480 MB of numbers.
    let csv = format!("y,a\n{}", "1,2\n".repeat(30_000_000));
    for path in ["/datasets", "/train?target=y"] {
        let reply = service.post_as("text/csv", path, &csv);
        reply.error(503);
        assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
        service.get("/health/live").ok(200);
    }
    std::fs::remove_file(&filler).unwrap();
    wait_until("the service is ready again", || service.get("/health/ready").status == 200);
    let url = format!(
        "postgres:///postgres?user=ridgeline&host={}",
        root.join(folder.0.strip_prefix("/").unwrap()).join("data/socket").display()
    );
    let mut conn = PgConnection::establish(&url).unwrap();
    let count =
        |conn: &mut PgConnection, query: &str| diesel::dsl::sql::<BigInt>(query).get_result::<i64>(conn).unwrap();
    let listed = |path: &str| service.get(path).ok(200)[&path[1..]].as_array().unwrap().len();
    assert_eq!((listed("/datasets"), listed("/models")), (1, 1));
    // What could not even be dropped for want of room is dropped by whoever looks first after two minutes.
    let arriving = "SELECT count(*) FROM datasets WHERE arriving_until IS NOT NULL";
    if count(&mut conn, arriving) > 0 {
        conn.batch_execute("UPDATE datasets SET arriving_until = now() WHERE arriving_until IS NOT NULL").unwrap();
    }
    let other = Settings::new(&url).set("ROCKET_WORKERS", 0).serve();
    wait_until("nothing is left of the uploads", || count(&mut conn, "SELECT count(*) FROM dataset_chunks") == 1);
    drop(other);
    let small: String = csv.chars().take(4 + 4 * 100_000).collect();
    service.post_as("text/csv", "/train?target=y", &small).ok(202);
    assert_eq!(service.model(id)["status"], "queued");
}
