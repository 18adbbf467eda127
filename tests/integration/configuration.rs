//! Configuration: where it comes from, and what stops the start.

use crate::support::{Database, Folder, Process, Service, Settings, example, ridgeline};

/// Runs the service until it refuses to start, and returns what it says.
fn refusal(variables: &[(&str, &str)]) -> String {
    let mut process = Process::spawn(ridgeline(&["serve"]).envs(variables.iter().copied()));
    let (code, log) = process.outcome();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.lines().count() == 1 && log.contains(" ERROR "), "{log}");
    log
}

/// A configuration file in a folder of its own.
struct File(Folder);

impl File {
    const NAME: &str = "settings.toml";

    fn new(text: &str) -> Self {
        let folder = Folder::new();
        std::fs::create_dir(&folder.0).unwrap();
        std::fs::write(folder.0.join(Self::NAME), text).unwrap();
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.0.join(Self::NAME).display().to_string()
    }
}

#[test]
fn an_unusable_value_stops_the_start_with_its_key() {
    let cases = [
        ("ROCKET_PORT", "70000", "port"),
        ("ROCKET_ADDRESS", "nowhere", "address"),
        ("ROCKET_WORKERS", "many", "workers"),
        ("ROCKET_WORKERS", "-1", "workers"),
        ("ROCKET_WORKERS", "100000", "workers"),
        ("ROCKET_LEASE_SECONDS", "0", "lease_seconds"),
        ("ROCKET_WORKER_MEMORY", "1 MiB", "worker_memory"),
        ("ROCKET_POOL_SIZE", "0", "pool_size"),
        ("ROCKET_POOL_TIMEOUT_SECONDS", "0", "pool_timeout_seconds"),
        ("ROCKET_TRAINING_THREADS", "x", "training_threads"),
        ("ROCKET_DATASET_RETENTION_SECONDS", "0", "dataset_retention_seconds"),
        ("ROCKET_LOG_LEVEL", "loud", "log_level"),
        ("ROCKET_LIMITS", "{train=\"lots\"}", "limits"),
        ("ROCKET_LIMITS", "{trian=\"1MB\"}", "limits.trian"),
        ("ROCKET_LIMITS", "{train=\"0\"}", "limits.train"),
        ("ROCKET_LIMITS", "{train=\"16384 PiB\"}", "limits.train"),
        ("ROCKET_LIMITS", "{json=\"1MB\"}", "limits.json"),
        ("ROCKET_LIMITS", "{train=\"1 GiB\", uploads=\"1 MiB\"}", "limits.uploads"),
        ("ROCKET_BODY_STALL_SECONDS", "0", "body_stall_seconds"),
        ("ROCKET_BODY_RATE", "0", "body_rate"),
        ("ROCKET_IDLE_TIMEOUT_SECONDS", "0", "idle_timeout_seconds"),
        ("ROCKET_CONNECTION_LIMIT", "1", "connection_limit"),
        ("ROCKET_QUEUE_LIMIT", "0", "queue_limit"),
        ("ROCKET_TRAINING_LIMIT_SECONDS", "0", "training_limit_seconds"),
        ("ROCKET_SHUTDOWN", "{graec=1}", "shutdown.graec"),
        ("ROCKET_MAX_BLOCKING", "0", "max_blocking"),
        ("ROCKET_ASYNC_THREADS", "100000", "async_threads"),
        ("DATABASE_URL", "postgres://localhost/x?foo=bar", "database_url"),
        ("ROCKET_DATA_DIR", "relative/path", "data_dir"),
        ("ROCKET_DATABASE_URL", "mysql://localhost/x", "database_url"),
        ("DATABASE_URL", "localhost:5432", "database_url"),
        ("ROCKET_WROKERS", "2", "wrokers"),
        ("ROCKET_TLS", "{certs=\"a\"}", "tls"),
        ("ROCKET_TLS", "{certs=\"a\",key=\"b\",mutual={ca_certs=\"c\"}}", "tls.mutual"),
        ("ROCKET_CONFIG", "/does/not/exist.toml", "ROCKET_CONFIG"),
    ];
    for (variable, value, key) in cases {
        let log = refusal(&[(variable, value)]);
        assert!(log.to_lowercase().contains(&key.to_lowercase()), "{variable}={value}: {log}");
    }
}

#[test]
fn a_file_anywhere_is_read_and_variables_win_over_it() {
    let database = Database::new();
    let text = format!("[default]\ndatabase_url = {:?}\nworkers = 0\nport = 1\nlog_level = \"warn\"\n", database.url);
    let file = File::new(&text);
    let path = file.path();
    let variables = [("ROCKET_CONFIG", path.as_str()), ("ROCKET_PORT", "0"), ("ROCKET_LOG_LEVEL", "info")];
    let mut process = Process::spawn(ridgeline(&["serve"]).envs(variables));
    process.wait_for_line("listening on ");
    assert!(process.children().is_empty(), "workers = 0 was not read");

    let file = File::new("[default]\nworker = 2\n");
    assert!(refusal(&[("ROCKET_CONFIG", file.path().as_str())]).contains("\"worker\""));
    let file = File::new("[default\nworkers = 2\n");
    refusal(&[("ROCKET_CONFIG", file.path().as_str())]);
}

#[test]
fn the_example_file_is_all_defaults() {
    let example = include_str!("../../Rocket.toml.example");
    let uncommented: Vec<String> = example
        .lines()
        .filter_map(|line| {
            let setting =
                line.strip_prefix("# ").filter(|setting| setting.contains(" = ") && !setting.starts_with(' '));
            setting
                .map_or_else(|| (!line.starts_with('#')).then(|| line.to_owned()), |setting| Some(setting.to_owned()))
        })
        .collect();
    let database = Database::new();
    let text = uncommented.join("\n").replace("postgres://ridgeline:secret@localhost/ridgeline", &database.url);
    let file = File::new(&text);
    let mut process =
        Process::spawn(ridgeline(&["serve"]).env("ROCKET_CONFIG", file.path().as_str()).env("ROCKET_PORT", "0"));
    process.wait_for_line("listening on ");
    assert!(uncommented.iter().any(|line| line.starts_with("lease_seconds = 30")), "{uncommented:?}");
}

#[test]
fn the_password_never_reaches_the_log() {
    let urls = [
        "postgres://someone:s3cr3t@127.0.0.1:1/x",
        "postgres://someone:s3cr3t@127.0.0.1:notaport/x",
        "postgres://someone:s3cr3t/more@127.0.0.1/x",
        "postgres://someone:s3cr3t@more@127.0.0.1/x",
        "postgres://someone:s3cr3t#more@127.0.0.1/x",
        "postgres://someone:s3cr3t?more@127.0.0.1/x",
        "postgres://someone:s3cr3t%zz@127.0.0.1/x",
        "mysql://someone:s3cr3t@127.0.0.1/x",
        "host=127.0.0.1 password=s3cr3t",
    ];
    for url in urls {
        for command in ["serve", "worker"] {
            let variables = [("DATABASE_URL", url), ("ROCKET_LOG_LEVEL", "trace"), ("ROCKET_PORT", "0")];
            let mut process = Process::spawn(ridgeline(&[command]).envs(variables));
            if url.ends_with(":1/x") {
                process.wait_for_line("the database cannot be reached");
                process.kill();
            } else {
                let (code, log) = process.outcome();
                assert!(code == Some(1) && log.contains("database_url"), "{url}: {code:?} {log}");
            }
            assert!(!process.log().contains("s3cr3t"), "{url}: {}", process.log());
        }
    }
}

#[test]
fn a_broken_file_does_not_spill_the_password() {
    let texts = [
        "[default]\ndatabase_url = \"postgres://u:s3cr3t@localhost/db\n",
        "[default]\ndatabase_url = \"postgres://u:s3cr3t@localhost/db'\n",
        "[default]\ndatabase_url = \"postgres://u:s3cr3t@a/b\"\ndatabase_url = \"postgres://u:s3cr3t@a/b\"\n",
        "database_url = \"postgres://u:s3cr3t@localhost/db\"\n",
        "[default]\ndatabase_url = [\"postgres://u:s3cr3t@localhost/db\"]\n",
        "[default]\nworkers = \"postgres://u:s3cr3t@localhost/db\"\n",
    ];
    for text in texts {
        let file = File::new(text);
        let log = refusal(&[("ROCKET_CONFIG", file.path().as_str())]);
        assert!(!log.contains("s3cr3t") && log.contains(File::NAME), "{text}: {log}");
    }
}

#[test]
fn the_port_in_use_is_named() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let port = service.url("").rsplit(':').next().unwrap().to_owned();
    let mut second = Process::spawn(ridgeline(&["serve"]).env("DATABASE_URL", &database.url).env("ROCKET_PORT", &port));
    let (code, log) = second.outcome();
    assert!(code == Some(1) && log.contains("the service cannot start (address, port)"), "{code:?} {log}");
    service.submit(&example());
}

#[test]
fn a_password_with_special_characters_works_when_encoded() {
    let database = Database::new();
    database.execute("CREATE ROLE \"odd user\" SUPERUSER LOGIN PASSWORD 'p@ss/w:rd?#%'");
    let url = database.url.replace("user=ridgeline", "user=odd%20user&password=p%40ss%2Fw%3Ard%3F%23%25");
    let service = Settings::new(&url).serve();
    service.train(&example());
    drop(service);
    database.execute("REASSIGN OWNED BY \"odd user\" TO ridgeline; DROP ROLE \"odd user\"");
}
