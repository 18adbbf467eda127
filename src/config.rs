//! One typed configuration for the API and the workers.
//!
//! It is read through Rocket's figment: defaults, then `Rocket.toml` (or the file that `ROCKET_CONFIG` names), then
//! `DATABASE_URL`, then `ROCKET_*` variables. `Rocket.toml.example` explains every key. An unknown key, or a value that
//! cannot be used, is an error that names the key.

mod sources;
mod url;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use log::LevelFilter;
use rocket::Config as RocketConfig;
use rocket::data::{ByteUnit, Limits};
use rocket::figment::Figment;
use rocket::figment::providers::Serialized;
use rocket::figment::value::Dict;
use serde::Deserialize;

use crate::{postgres, ridge};
use sources::{check_names, for_rocket, sources, without_values};
pub use url::DatabaseUrl;

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the data live; `None` means the private server in `data_dir`.
    pub database_url: Option<DatabaseUrl>,
    /// The folder of the private PostgreSQL server.
    pub data_dir: PathBuf,
    /// Worker processes that `ridgeline serve` keeps running.
    pub workers: usize,
    /// Threads that one worker trains with: one per core unless configured.
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
    /// Largest body of `POST /train` and `POST /datasets` that is not read as it arrives.
    pub train_limit: ByteUnit,
    /// Largest body of a prediction that is not read as it arrives, or that is answered with JSON.
    pub predict_limit: ByteUnit,
    /// Largest CSV body, which is read as it arrives.
    pub stream_limit: ByteUnit,
    /// Bytes that large bodies hold together while they are read and worked on.
    pub uploads_limit: ByteUnit,
    /// Bytes of trained models that the API keeps in memory.
    pub models_limit: ByteUnit,
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

/// A hundred years.
const MOST_RETENTION: u64 = 100 * 366 * 86_400;
/// With less no job could be trained at all.
const LEAST_WORKER_MEMORY: ByteUnit = ByteUnit::Mebibyte(64);
/// Bodies are held in memory, a few times over.
const LARGEST_LIMIT: ByteUnit = ByteUnit::Gibibyte(16);
/// Bodies that are read as they arrive end on the disk.
const LARGEST_STREAM: ByteUnit = ByteUnit::Tebibyte(16);
/// What large bodies hold together where nobody says otherwise, if no single one may be larger.
const UPLOADS: ByteUnit = ByteUnit::Gibibyte(1);
/// What is kept of trained models where nobody says otherwise.
const MODELS: ByteUnit = ByteUnit::Mebibyte(64);

impl Config {
    /// Reads the configuration of this process's environment.
    ///
    /// # Errors
    /// A sentence that names the key, for the first key that is unknown or whose value cannot be used.
    pub fn load() -> anyhow::Result<Self> {
        Self::from_sources(sources()?)
    }

    /// Checks what the file and the environment say, and fills in the defaults.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn from_sources(sources: Figment) -> anyhow::Result<Self> {
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
        let limit = |name, largest| {
            let limit = keys.limits.get(name).with_context(|| format!("limits.{name} is missing"))?;
            ensure!(limit > 0 && limit <= largest, "limits.{name} must be 1 byte to {largest}, but is {limit}");
            Ok(limit)
        };
        let (train_limit, predict_limit) = (limit("train", LARGEST_LIMIT)?, limit("predict", LARGEST_LIMIT)?);
        let stream_limit = limit("stream", LARGEST_STREAM)?;
        let largest = train_limit.max(predict_limit);
        let uploads_limit = keys.limits.get("uploads").unwrap_or(UPLOADS.max(largest));
        ensure!(
            uploads_limit >= largest,
            "limits.uploads must be at least {largest}, the largest body that is taken, but is {uploads_limit}"
        );
        let models_limit = keys.limits.get("models").unwrap_or(MODELS);
        ensure!(models_limit <= LARGEST_LIMIT, "limits.models must be at most {LARGEST_LIMIT}, but is {models_limit}");
        let config = Self {
            database_url,
            data_dir,
            workers: keys.workers,
            // Asking for the cores takes as long as training on few rows.
            training_threads: ridge::n_threads(keys.training_threads),
            worker_memory: Some(keys.worker_memory).filter(|&most| most > 0),
            lease: Duration::from_secs(keys.lease_seconds),
            training_limit: Duration::from_secs(keys.training_limit_seconds),
            queue_limit: keys.queue_limit,
            dataset_retention: keys.dataset_retention_seconds.map(Duration::from_secs),
            pool_size: keys.pool_size,
            pool_timeout: Duration::from_secs(keys.pool_timeout_seconds),
            train_limit,
            predict_limit,
            stream_limit,
            uploads_limit,
            models_limit,
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
    let limits = Limits::new()
        .limit("train", ByteUnit::Mebibyte(512))
        .limit("predict", ByteUnit::Mebibyte(256))
        .limit("stream", ByteUnit::Gibibyte(16));
    Figment::from(RocketConfig::default())
        .merge(Serialized::default("workers", 1))
        .merge(Serialized::default("training_threads", 0))
        .merge(Serialized::default("worker_memory", ByteUnit::Gibibyte(2)))
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
