//! One typed configuration for the API and the workers.
//!
//! It is read through Rocket's figment: defaults, then `Rocket.toml` (or the file that `ROCKET_CONFIG` names), then
//! `DATABASE_URL`, then `ROCKET_*` variables. `Rocket.toml.example` explains every key. An unknown key, or a value that
//! cannot be used, is an error that names the key.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use log::LevelFilter;
use rocket::Config as RocketConfig;
use rocket::data::{ByteUnit, Limits};
use rocket::figment::providers::{Env, Format, Serialized, Toml};
use rocket::figment::value::{Dict, Value};
use rocket::figment::{self, Figment, Profile};
use serde::Deserialize;

use crate::postgres;

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the data live; `None` means the private server in `data_dir`.
    pub database_url: Option<DatabaseUrl>,
    /// The folder of the private PostgreSQL server.
    pub data_dir: PathBuf,
    /// Worker processes that `ridgeline serve` keeps running.
    pub workers: usize,
    /// Threads that one worker trains with; 0 means one per core.
    pub training_threads: usize,
    /// Most memory that a worker may hold while it trains; `None`: as much as the machine gives.
    pub worker_memory: Option<ByteUnit>,
    /// How long a worker is believed to be alive after its last sign of life.
    pub lease: Duration,
    /// How long a worker trains one job before it is given up as failed.
    pub training_limit: Duration,
    /// Most jobs that wait in the queue.
    pub queue_limit: u32,
    /// How long datasets are kept after their jobs have ended; `None`: for ever.
    pub dataset_retention: Option<Duration>,
    /// Most database connections that the API holds at once.
    pub pool_size: u32,
    /// How long a request waits for a database connection before it is answered with 503.
    pub pool_timeout: Duration,
    /// Largest body of `POST /train`.
    pub train_limit: ByteUnit,
    /// Largest body of a prediction.
    pub predict_limit: ByteUnit,
    /// Bytes that large bodies hold together while they are read and worked on.
    pub uploads_limit: ByteUnit,
    /// How long a body may go without a byte.
    pub body_stall: Duration,
    /// Bytes a second that a body must bring on average, after a start of `body_stall`.
    pub body_rate: ByteUnit,
    /// How long a connection without a request under way stays open.
    pub idle_timeout: Duration,
    /// Open connections beyond which those without a request under way are closed.
    pub connection_limit: u32,
    /// What is logged.
    pub log_level: LevelFilter,
    /// The part that Rocket reads: address, port, shutdown and so on.
    pub rocket: RocketConfig,
}

/// A database connection URL. It holds a password, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Accepts `postgres://` and `postgresql://` URLs, errors never quote the text.
    ///
    /// Rocket's parser vouches that the password ends where libpq thinks it does: libpq quotes the parts of a URL that it
    /// misunderstands in its messages, and those reach the log.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let Some(rest) = rest else {
            bail!("must start with postgres:// or postgresql://");
        };
        ensure!(
            is_percent_encoded(rest),
            "has a % that does not begin a percent-encoded character; a % itself is written %25"
        );
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !authority.is_empty() {
            let hint = "is not a valid URL; special characters of the password must be percent-encoded";
            let parsed =
                rocket::http::uri::Authority::parse(authority).map_err(|_quotes_the_url| anyhow::anyhow!(hint))?;
            ensure!(!parsed.host().contains('@') && !rest[authority.len()..].contains('@'), hint);
        }
        Ok(Self(with_defaults(url)))
    }

    /// The URL itself, for the connection only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether every `%` begins an encoded character that libpq takes.
fn is_percent_encoded(url: &str) -> bool {
    let is_code = |code: &str| {
        let digits = code.get(..2);
        digits.is_some_and(|digits| digits != "00" && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    url.split('%').skip(1).all(is_code)
}

/// What libpq would rather wait for without end, bounded, unless the URL has its own say.
fn with_defaults(url: &str) -> String {
    let settings = [
        ("connect_timeout", "5"),
        ("tcp_user_timeout", "15000"),
        // Who waits for an answer learns within half a minute that the other host is gone.
        ("keepalives_idle", "15"),
        ("keepalives_interval", "5"),
        ("keepalives_count", "3"),
        ("fallback_application_name", "ridgeline"),
    ];
    settings.iter().fold(url.to_owned(), |url, (name, value)| {
        let separator = if url.contains('?') { '&' } else { '?' };
        if url.contains(&format!("{name}=")) { url } else { format!("{url}{separator}{name}={value}") }
    })
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(hidden)")
    }
}

/// Our own keys as they are written, before they are checked.
#[derive(Deserialize)]
struct Keys {
    database_url: Option<String>,
    data_dir: Option<PathBuf>,
    workers: usize,
    async_threads: Option<usize>,
    training_threads: usize,
    worker_memory: ByteUnit,
    lease_seconds: u64,
    training_limit_seconds: u64,
    queue_limit: u32,
    dataset_retention_seconds: Option<u64>,
    pool_size: u32,
    pool_timeout_seconds: u64,
    body_stall_seconds: u64,
    body_rate: ByteUnit,
    idle_timeout_seconds: u64,
    connection_limit: u32,
    log_level: String,
    limits: Limits,
}

const OWN_KEYS: [&str; 17] = [
    "database_url",
    "data_dir",
    "workers",
    "async_threads",
    "training_threads",
    "worker_memory",
    "lease_seconds",
    "training_limit_seconds",
    "queue_limit",
    "dataset_retention_seconds",
    "pool_size",
    "pool_timeout_seconds",
    "body_stall_seconds",
    "body_rate",
    "idle_timeout_seconds",
    "connection_limit",
    "log_level",
];
/// Keys that Rocket knows but that have no effect here: to accept one would be a trap.
const UNUSED_ROCKET_KEYS: [&str; 3] = ["secret_key", "cli_colors", "temp_dir"];
/// Not `mutual`, Rocket's certificates of clients: API keys tell who calls.
const TLS_NAMES: [&str; 4] = ["certs", "key", "ciphers", "prefer_server_cipher_order"];
const LIMIT_NAMES: [&str; 3] = ["train", "predict", "uploads"];
const SHUTDOWN_NAMES: [&str; 5] = ["ctrlc", "signals", "grace", "mercy", "force"];
/// A hundred years.
const MOST_RETENTION: u64 = 100 * 366 * 86_400;
/// With less no job could be trained at all.
const LEAST_WORKER_MEMORY: ByteUnit = ByteUnit::Mebibyte(64);
/// Bodies are held in memory, a few times over.
const LARGEST_LIMIT: ByteUnit = ByteUnit::Gibibyte(16);
/// What large bodies hold together where nobody says otherwise, if no single one may be larger.
const UPLOADS: ByteUnit = ByteUnit::Gibibyte(1);

impl Config {
    /// Reads the configuration of this process's environment.
    ///
    /// # Errors
    /// A sentence that names the key, for the first key that is unknown or whose value cannot be used.
    pub fn load() -> anyhow::Result<Self> {
        Self::from_sources(sources()?)
    }

    /// Checks what the file and the environment say, and fills in the defaults.
    pub(crate) fn from_sources(sources: Figment) -> anyhow::Result<Self> {
        check_names(&sources.extract::<Dict>().map_err(without_values)?)?;
        let figment = defaults().merge(&sources).select(sources.profile().clone());
        let keys: Keys = figment.extract().map_err(without_values)?;
        let database_url = keys.database_url.filter(|url| !url.is_empty());
        let database_url = database_url.map(|url| DatabaseUrl::parse(&url)).transpose().context("database_url")?;
        let data_dir = keys.data_dir.map_or_else(postgres::default_data_dir, Ok).context("data_dir")?;
        ensure!(data_dir.is_absolute(), "data_dir must be an absolute path, but is {}", data_dir.display());
        ensure!((1..=1000).contains(&keys.pool_size), "pool_size must be 1 to 1000, but is {}", keys.pool_size);
        ensure!(
            (1..=3600).contains(&keys.lease_seconds),
            "lease_seconds must be 1 to 3600, but is {}",
            keys.lease_seconds
        );
        ensure!(
            (1..=2_592_000).contains(&keys.training_limit_seconds),
            "training_limit_seconds must be 1 to 2592000 (30 days), but is {}",
            keys.training_limit_seconds
        );
        ensure!(
            (1..=10_000_000).contains(&keys.queue_limit),
            "queue_limit must be 1 to 10000000, but is {}",
            keys.queue_limit
        );
        if let Some(seconds) = keys.dataset_retention_seconds {
            ensure!(
                (1..=MOST_RETENTION).contains(&seconds),
                "dataset_retention_seconds must be 1 to {MOST_RETENTION} (100 years), but is {seconds}"
            );
        }
        ensure!(keys.workers <= 256, "workers must be at most 256, but is {}", keys.workers);
        ensure!(
            keys.training_threads <= 1024,
            "training_threads must be at most 1024, but is {}",
            keys.training_threads
        );
        ensure!(
            keys.worker_memory == 0 || keys.worker_memory >= LEAST_WORKER_MEMORY,
            "worker_memory must be 0 (no limit) or at least {LEAST_WORKER_MEMORY}, but is {}",
            keys.worker_memory
        );
        ensure!(
            (1..=60).contains(&keys.pool_timeout_seconds),
            "pool_timeout_seconds must be 1 to 60, but is {}",
            keys.pool_timeout_seconds
        );
        ensure!(
            (1..=3600).contains(&keys.body_stall_seconds),
            "body_stall_seconds must be 1 to 3600, but is {}",
            keys.body_stall_seconds
        );
        ensure!(
            keys.body_rate > 0 && keys.body_rate <= ByteUnit::Gibibyte(1),
            "body_rate must be 1 byte to 1 GiB (a second), but is {}",
            keys.body_rate
        );
        ensure!(
            (1..=86_400).contains(&keys.idle_timeout_seconds),
            "idle_timeout_seconds must be 1 to 86400, but is {}",
            keys.idle_timeout_seconds
        );
        ensure!(
            (10..=1_000_000).contains(&keys.connection_limit),
            "connection_limit must be 10 to 1000000, but is {}",
            keys.connection_limit
        );
        let log_level = keys.log_level.parse().with_context(|| {
            format!("log_level must be off, error, warn, info, debug or trace, but is {:?}", keys.log_level)
        })?;
        let limit = |name| {
            let limit = keys.limits.get(name).with_context(|| format!("limits.{name} is missing"))?;
            ensure!(
                limit > 0 && limit <= LARGEST_LIMIT,
                "limits.{name} must be 1 byte to {LARGEST_LIMIT}, but is {limit}"
            );
            Ok(limit)
        };
        let (train_limit, predict_limit) = (limit("train")?, limit("predict")?);
        let largest = train_limit.max(predict_limit);
        let uploads_limit = keys.limits.get("uploads").unwrap_or(UPLOADS.max(largest));
        ensure!(
            uploads_limit >= largest,
            "limits.uploads must be at least {largest}, the largest body that is taken, but is {uploads_limit}"
        );
        let config = Self {
            database_url,
            data_dir,
            workers: keys.workers,
            training_threads: keys.training_threads,
            worker_memory: Some(keys.worker_memory).filter(|&most| most > 0),
            lease: Duration::from_secs(keys.lease_seconds),
            training_limit: Duration::from_secs(keys.training_limit_seconds),
            queue_limit: keys.queue_limit,
            dataset_retention: keys.dataset_retention_seconds.map(Duration::from_secs),
            pool_size: keys.pool_size,
            pool_timeout: Duration::from_secs(keys.pool_timeout_seconds),
            train_limit,
            predict_limit,
            uploads_limit,
            body_stall: Duration::from_secs(keys.body_stall_seconds),
            body_rate: keys.body_rate,
            idle_timeout: Duration::from_secs(keys.idle_timeout_seconds),
            connection_limit: keys.connection_limit,
            log_level,
            rocket: for_rocket(figment, keys.async_threads)?,
        };
        ensure!(config.rocket.max_blocking > 0, "max_blocking must be at least 1");
        Ok(config)
    }
}

/// What holds where nobody says otherwise.
fn defaults() -> Figment {
    let limits = Limits::new().limit("train", ByteUnit::Mebibyte(512)).limit("predict", ByteUnit::Mebibyte(256));
    Figment::from(RocketConfig::default())
        .merge(Serialized::default("workers", 1))
        .merge(Serialized::default("training_threads", 0))
        .merge(Serialized::default("worker_memory", 0))
        .merge(Serialized::default("lease_seconds", 30))
        .merge(Serialized::default("training_limit_seconds", 86_400))
        .merge(Serialized::default("queue_limit", 10_000))
        .merge(Serialized::default("pool_size", 16))
        .merge(Serialized::default("pool_timeout_seconds", 5))
        .merge(Serialized::default("body_stall_seconds", 30))
        .merge(Serialized::default("body_rate", ByteUnit::Kibibyte(4)))
        .merge(Serialized::default("idle_timeout_seconds", 30))
        .merge(Serialized::default("connection_limit", 10_000))
        .merge(Serialized::default("log_level", "info"))
        .merge(Serialized::default("ident", false))
        .merge(Serialized::default("limits", limits))
}

/// What the file and the environment say, the later sources winning.
fn sources() -> anyhow::Result<Figment> {
    let file = Env::var("ROCKET_CONFIG");
    if let Some(path) = &file {
        ensure!(PathBuf::from(path).is_file(), "ROCKET_CONFIG names {path}, which is not a file");
    }
    Ok(Figment::new()
        .merge(Toml::file(file.unwrap_or_else(|| "Rocket.toml".to_owned())).nested())
        .merge(Env::raw().only(&["DATABASE_URL"]).global())
        .merge(Env::prefixed("ROCKET_").ignore(&["PROFILE", "CONFIG"]).global())
        .select(Profile::from_env_or("ROCKET_PROFILE", RocketConfig::DEFAULT_PROFILE)))
}

/// Refuses keys that nobody reads, because a misspelt key would silently mean the default.
fn check_names(all: &Dict) -> anyhow::Result<()> {
    let rockets = |key: &str| RocketConfig::PARAMETERS.contains(&key) && !UNUSED_ROCKET_KEYS.contains(&key);
    let known = |key: &str| OWN_KEYS.contains(&key) || rockets(key);
    if let Some(key) = all.keys().find(|key| !known(key)) {
        bail!("unknown configuration key {key:?}; Rocket.toml.example lists the known ones");
    }
    for (table, known) in [("limits", &LIMIT_NAMES[..]), ("shutdown", &SHUTDOWN_NAMES), ("tls", &TLS_NAMES)] {
        let Some(Value::Dict(_, keys)) = all.get(table) else { continue };
        if let Some(name) = keys.keys().find(|name| !known.contains(&name.as_str())) {
            bail!("unknown configuration key \"{table}.{name}\"; known are {}", known.join(", "));
        }
    }
    Ok(())
}

/// What is wrong, and where, but not with what value if that may be the database's URL: figment quotes it, and a file that is
/// not TOML is quoted line by line.
fn without_values(error: figment::Error) -> anyhow::Error {
    let said = error.to_string();
    let is_secret = said.contains("://") || error.path.iter().any(|key| key.eq_ignore_ascii_case("database_url"));
    if !is_secret && !said.contains('\n') {
        return anyhow::anyhow!(said);
    }
    let place = error.metadata.as_ref().and_then(|data| data.source.as_ref()).map(|source| format!(" in {source}"));
    let place = place.unwrap_or_default();
    match said.lines().next().filter(|line| line.starts_with("TOML parse error at ")) {
        Some(line) => anyhow::anyhow!("{line}{place}: this is not valid TOML"),
        None => anyhow::anyhow!(
            "a value has the wrong type{place}: database_url must be a string, and every key must stand below a line [default]"
        ),
    }
}

/// Rocket's share: `workers` and `log_level` mean something else to it, and it logs through our logger anyway.
fn for_rocket(figment: Figment, async_threads: Option<usize>) -> anyhow::Result<RocketConfig> {
    let threads = async_threads.filter(|&n| n > 0).unwrap_or_else(|| RocketConfig::default().workers);
    ensure!(threads <= 1024, "async_threads must be at most 1024, but is {threads}");
    let figment = figment
        .merge(Serialized::global("workers", threads))
        .merge(Serialized::global("log_level", "off"))
        .merge(Serialized::global("cli_colors", false));
    RocketConfig::try_from(figment).map_err(without_values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_database_url() {
        let sources = Figment::new().merge(Serialized::default("database_url", "postgres://u:s3cr3t@localhost/db"));
        let config = Config::from_sources(sources).unwrap();
        assert!(!format!("{config:?}").contains("s3cr3t"));
        assert!(config.database_url.unwrap().expose().starts_with("postgres://u:s3cr3t@localhost/db?"));
    }
}
