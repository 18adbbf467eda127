//! `ridgeline serve` and `ridgeline worker` on a database of the test's own.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Database;
use super::client::{Reply, send};
use super::process::{Process, clean, ridgeline, ridgeline_with_descriptors, wait_until};

/// How a service is started: `ROCKET_*` variables over what suits tests.
pub(crate) struct Settings(Vec<(&'static str, String)>);

impl Settings {
    /// One worker, any free port, a short lease.
    pub(crate) fn new(database_url: &str) -> Self {
        Self(vec![])
            .set("DATABASE_URL", database_url)
            .set("ROCKET_PORT", 0)
            .set("ROCKET_WORKERS", 1)
            .set("ROCKET_LEASE_SECONDS", 2)
            .set("ROCKET_TRAINING_THREADS", 1)
            .set("ROCKET_POOL_TIMEOUT_SECONDS", 2)
    }

    pub(crate) fn set(mut self, variable: &'static str, value: impl ToString) -> Self {
        self.0.push((variable, value.to_string()));
        self
    }

    pub(crate) fn serve(self) -> Service {
        self.started_by(&mut ridgeline(&["serve"]))
    }

    /// A service that may have no more than so many files open.
    pub(crate) fn serve_with_descriptors(self, most: u32) -> Service {
        self.started_by(&mut ridgeline_with_descriptors(&["serve"], most))
    }

    /// A service for which `folder`, empty, is a file system of so many mebibytes.
    pub(crate) fn serve_on_file_system(self, folder: &Path, mebibytes: u32) -> Service {
        // In name spaces of its own, where anybody may mount; and as another user than root, whom PostgreSQL refuses.
        let script =
            "mount -t tmpfs -o size=$2m tmpfs \"$1\" && exec unshare --user --map-user=1 --map-group=1 \"$0\" serve";
        let program = ridgeline(&[]);
        let mut command = clean("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(program.get_program());
        command.arg(folder).arg(mebibytes.to_string());
        self.started_by(&mut command)
    }

    fn started_by(self, command: &mut Command) -> Service {
        let mut process = Process::spawn(command.envs(self.0));
        let url = process.wait_for_line("listening on ");
        Service { process, url }
    }

    pub(crate) fn worker(self) -> Process {
        let mut process = Process::spawn(ridgeline(&["worker"]).envs(self.0));
        process.wait_for_line("is ready");
        process
    }

    /// A worker that can address no more than so many kibibytes.
    pub(crate) fn worker_within(self, kibibytes: u64) -> Process {
        let program = ridgeline(&["worker"]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "ulimit -v \"$1\" && exec \"$0\" worker"]).arg(program.get_program());
        shell.arg(kibibytes.to_string()).current_dir(program.get_current_dir().unwrap());
        for (name, value) in program.get_envs() {
            assert!(value.is_none(), "{name:?} is to be removed");
            shell.env_remove(name);
        }
        let mut process = Process::spawn(shell.envs(self.0));
        process.wait_for_line("is ready");
        process
    }
}

/// A running API.
pub(crate) struct Service {
    pub(crate) process: Process,
    url: String,
}

impl Service {
    /// With one worker.
    pub(crate) fn start(database: &Database) -> Self {
        Settings::new(&database.url).serve()
    }

    /// Without workers: what is queued stays queued.
    pub(crate) fn without_workers(database: &Database) -> Self {
        Settings::new(&database.url).set("ROCKET_WORKERS", 0).serve()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        send(method, &self.url(path), headers, body)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], &[])
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_as("application/json", path, body.to_string())
    }

    #[track_caller]
    pub(crate) fn post_as(&self, content_type: &str, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send("POST", path, &[("Content-Type", content_type)], body.as_ref())
    }

    /// Queues a training and returns the model's id.
    #[track_caller]
    pub(crate) fn submit(&self, request: &Value) -> i64 {
        self.post("/train", request).ok(202)["model_id"].as_i64().unwrap()
    }

    /// The document of a model.
    #[track_caller]
    pub(crate) fn model(&self, id: i64) -> Value {
        self.get(&format!("/model/{id}")).ok(200)
    }

    /// The document of a model once it has ended.
    #[track_caller]
    pub(crate) fn ended(&self, id: i64) -> Value {
        let mut model = json!(null);
        wait_until(&format!("model {id} has ended"), || {
            model = self.model(id);
            !["queued", "training"].contains(&model["status"].as_str().unwrap())
        });
        model
    }

    /// The document of a model that is trained to its end.
    #[track_caller]
    pub(crate) fn train(&self, request: &Value) -> Value {
        let model = self.ended(self.submit(request));
        assert_eq!(model["status"], "trained", "{model}");
        model
    }

    #[track_caller]
    pub(crate) fn predict(&self, id: &Value, csv: &str) -> Value {
        self.post(&format!("/model/{id}/predict"), &json!({"data": csv})).ok(200)["result"].clone()
    }
}
