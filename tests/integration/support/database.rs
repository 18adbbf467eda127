//! Throwaway PostgreSQL: one server for the run, one database for a test, cloned from a migrated template.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ridgeline::config::DatabaseUrl;
use ridgeline::db;
use ridgeline::postgres::{Keep, PrivatePostgres, Settings};

use super::folder::{self, Folder};
use super::{children_of, is_running, wait_until};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A server of a test's own, to be stopped and started again.
pub(crate) struct Server {
    running: Option<PrivatePostgres>,
    // Must be the last field: it goes when the server has stopped.
    folder: Folder,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut server = Self { running: None, folder: Folder::new() };
        server.restart();
        server
    }

    /// Stops it the fast way: connections are cut.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// Whether it has not been stopped.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Ends it as `signal` does, with all that belongs to it.
    pub(crate) fn end_by(&mut self, signal: Signal) {
        let processes = self.processes();
        kill(processes[0], signal).unwrap();
        wait_until("the server has ended", || !processes.iter().copied().any(is_running));
        self.stop();
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let settings = Settings { data_dir: self.folder.0.clone(), keep: Keep::Durable };
        self.running = Some(PrivatePostgres::start(&settings).unwrap());
    }

    /// Its main process, and those that serve connections and itself.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let pid_file = std::fs::read_to_string(self.folder.0.join("postgres/postmaster.pid")).unwrap();
        let main = Pid::from_raw(pid_file.lines().next().unwrap().parse().unwrap());
        std::iter::once(main).chain(children_of(main)).collect()
    }

    /// Another program of this server's version, such as `pg_dump`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        private_program(&self.folder.0, name)
    }

    /// The URL, which stays the same over restarts.
    pub(crate) fn url(&self) -> &str {
        self.running.as_ref().unwrap().url()
    }
}

/// Another program of the version of the private server that runs in a folder.
pub(crate) fn private_program(folder: &Path, name: &str) -> PathBuf {
    let pid_file = std::fs::read_to_string(folder.join("postgres/postmaster.pid")).unwrap();
    let server = std::fs::read_link(format!("/proc/{}/exe", pid_file.lines().next().unwrap())).unwrap();
    server.with_file_name(name)
}

/// The run's server. Nothing drops a static, but the server ends with this process, and its folder goes with it.
fn shared_server() -> &'static PrivatePostgres {
    static SERVER: OnceLock<PrivatePostgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = Settings { data_dir: folder::new_path(), keep: Keep::Throwaway };
        let server = PrivatePostgres::start(&settings).unwrap();
        execute(server.url(), "CREATE DATABASE template");
        let template = DatabaseUrl::parse(&url_of(server.url(), "template")).unwrap();
        drop(db::connect_and_migrate(&template, Duration::ZERO, &AtomicBool::new(false)).unwrap());
        server
    })
}

/// The URL of another database of the same server.
fn url_of(url: &str, database: &str) -> String {
    url.replacen("/postgres?", &format!("/{database}?"), 1)
}

fn connect(url: &str) -> PgConnection {
    PgConnection::establish(url).unwrap()
}

/// Runs statements.
pub(crate) fn execute(url: &str, sql: &str) {
    connect(url).batch_execute(sql).unwrap();
}

/// The one value of a query, as text.
#[track_caller]
pub(crate) fn value(url: &str, sql: &str) -> String {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        value: String,
    }
    let query = format!("SELECT ({sql})::text AS value");
    diesel::sql_query(query).get_result::<Row>(&mut connect(url)).unwrap().value
}

/// Records every change of a model's status in this database from now on in the table `changes`: when, and how many jobs
/// that are queued before it were left to others when it was taken.
pub(crate) fn record_changes(url: &str) {
    execute(
        url,
        "CREATE TABLE changes (model_id int, old text, new text, attempt int, at timestamptz, skipped bigint);
         CREATE FUNCTION record_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO changes SELECT NEW.id, OLD.status, NEW.status, NEW.attempt, clock_timestamp(),
                 (SELECT count(*) FROM models WHERE status = 'queued' AND id < NEW.id AND NEW.status = 'training');
             RETURN NULL;
         END $$;
         CREATE TRIGGER record_change AFTER UPDATE OF status ON models FOR EACH ROW
             WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION record_change()",
    );
}

/// A database of a test's own; dropped with it.
pub(crate) struct Database {
    name: String,
    pub(crate) url: String,
}

impl Database {
    /// Migrated and without rows.
    pub(crate) fn new() -> Self {
        Self::create("TEMPLATE template")
    }

    /// Without any table.
    pub(crate) fn empty() -> Self {
        Self::create("TEMPLATE template0")
    }

    fn create(how: &str) -> Self {
        let server = shared_server();
        let name = format!("test_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        execute(server.url(), &format!("CREATE DATABASE {name} {how}"));
        Self { url: url_of(server.url(), &name), name }
    }

    pub(crate) fn connect(&self) -> PgConnection {
        connect(&self.url)
    }

    pub(crate) fn execute(&self, sql: &str) {
        execute(&self.url, sql);
    }

    /// The one value of a query, as text.
    #[track_caller]
    pub(crate) fn value(&self, sql: &str) -> String {
        value(&self.url, sql)
    }

    /// Records every change of a model's status from now on in the table `changes`.
    pub(crate) fn record_changes(&self) {
        record_changes(&self.url);
    }

    /// How many times the model became `status`, as [`record_changes`](Self::record_changes) saw it.
    pub(crate) fn times(&self, id: i64, status: &str) -> String {
        self.value(&format!("SELECT count(*) FROM changes WHERE model_id = {id} AND new = '{status}'"))
    }

    /// The number of rows in each table that holds what clients post.
    pub(crate) fn stored_rows(&self) -> String {
        let count = |table| format!("(SELECT count(*) FROM {table})");
        let counts = ["datasets", "dataset_chunks", "models"].map(count).join(", ");
        let left_behind =
            "SELECT nullif(count(*), 0) FROM dataset_pages LEFT JOIN dataset_chunks USING (dataset_id, position)
                           WHERE n_pages IS NULL";
        self.value(&format!("SELECT concat_ws(' ', {counts}, ({left_behind}))"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        execute(shared_server().url(), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}
