//! The schema: migrations there and back, by hand and by the service, and what the tables refuse.

use std::path::Path;
use std::process::{Command, Output};

use diesel::RunQueryDsl;

use crate::support::{Database, Service, example};

/// The diesel command line, from where `script/setup test` puts it.
fn diesel(database: &Database, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/tools/bin/diesel");
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(root).env("DATABASE_URL", &database.url);
    if arguments[0] == "migration" {
        // Without diesel.toml, which would have it write the schema into the sources.
        command.args(["--config-file", "/dev/null", "--migration-dir", "migrations"]);
    }
    let Output { status, stdout, stderr } = command
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; script/setup test installs it", program.display()));
    assert!(status.success(), "diesel {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn tables(database: &Database) -> String {
    database.value(
        "SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM information_schema.tables
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_\\_%'",
    )
}

#[test]
fn migrations_run_by_hand_are_those_that_the_service_runs() {
    let database = Database::empty();
    diesel(&database, &["migration", "run"]);
    assert_eq!(tables(&database), "api_keys dataset_chunks dataset_pages datasets job_statistics models");
    let service = Service::start(&database);
    service.train(&example());
    assert!(!service.process.log().contains("ran the database migrations"));

    let by_service = Database::empty();
    let service = Service::start(&by_service);
    assert!(service.process.log().contains("ran the database migrations"));
    diesel(&by_service, &["migration", "run"]);
    service.train(&example());
    let printed = [&database, &by_service].map(|database| diesel(database, &["print-schema"]));
    assert_eq!(printed[0], printed[1]);
}

#[test]
fn the_generated_schema_is_current() {
    let database = Database::new();
    let printed = diesel(&database, &["print-schema"]);
    assert_eq!(printed, include_str!("../../src/db/schema.rs"), "run `diesel migration run`, which writes it");
}

#[test]
fn migrations_go_down_and_up_again() {
    let database = Database::empty();
    diesel(&database, &["migration", "run"]);
    diesel(&database, &["migration", "redo", "--all"]);
    assert_eq!(tables(&database), "api_keys dataset_chunks dataset_pages datasets job_statistics models");
    diesel(&database, &["migration", "revert", "--all"]);
    assert_eq!(database.value(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public' AND table_name NOT LIKE '\\_\\_%'"
    ), "0");
    diesel(&database, &["migration", "run"]);
    Service::start(&database).train(&example());
}

#[test]
fn a_redo_under_a_running_service_leaves_it_working() {
    let database = Database::new();
    let service = Service::start(&database);
    service.train(&example());
    diesel(&database, &["migration", "redo", "--all"]);
    let model = service.train(&example());
    assert_eq!(model["model_id"], 1, "the models were dropped, and are numbered anew");
}

#[test]
fn the_tables_refuse_what_the_code_never_writes() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&example())["model_id"].clone();
    let queued = "INSERT INTO models (dataset_id, params) SELECT id, '{}' FROM datasets LIMIT 1";
    database.execute(queued);
    let cases = [
        (format!("UPDATE models SET model = NULL WHERE id = {id}"), "models_result_when_trained"),
        (format!("UPDATE models SET status = 'queued' WHERE id = {id}"), "violates check"),
        (format!("UPDATE models SET finished_at = NULL WHERE id = {id}"), "models_finished_when_ended"),
        (format!("UPDATE models SET error = 'x' WHERE id = {id}"), "models_error_when_failed"),
        (format!("UPDATE models SET lease_token = 1 WHERE id = {id}"), "models_lease_while_training"),
        (format!("UPDATE models SET cv_results = '{{}}' WHERE id = {id}"), "models_cv_results_check"),
        (format!("UPDATE models SET status = 'done' WHERE id = {id}"), "violates check"),
        (format!("UPDATE models SET progress = 2 WHERE id = {id}"), "models_progress_check"),
        ("INSERT INTO models (dataset_id, params) VALUES (999, '{}')".to_owned(), "models_dataset_id_fkey"),
        ("INSERT INTO dataset_chunks VALUES (1, 1, 'abcd')".to_owned(), "dataset_chunks_cells_check"),
        ("INSERT INTO dataset_chunks VALUES (1, 1, 'abc', '')".to_owned(), "dataset_chunks_cells_check"),
        ("INSERT INTO dataset_chunks VALUES (1, 1, 'abcd', 'abcd')".to_owned(), "dataset_chunks_cells_check"),
        ("INSERT INTO dataset_chunks VALUES (1, 1, 'abcd', '', -1)".to_owned(), "dataset_chunks_n_pages_check"),
        ("INSERT INTO dataset_pages VALUES (1, 0, 0, 'abcd')".to_owned(), "dataset_pages_cells_check"),
        ("INSERT INTO datasets (column_names, n_rows) VALUES ('[]', 1)".to_owned(), "check"),
        ("DELETE FROM datasets".to_owned(), "models_dataset_until_ended"),
    ];
    for (sql, constraint) in cases {
        let error = diesel::sql_query(&sql).execute(&mut database.connect()).unwrap_err().to_string();
        assert!(error.contains(constraint), "{sql}: {error}");
    }
}
