//! Where the configuration comes from, which keys there are, and how what is wrong is said without its secrets.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use rocket::Config as RocketConfig;
use rocket::figment::providers::{Env, Format, Serialized, Toml};
use rocket::figment::value::{Dict, Value};
use rocket::figment::{self, Figment, Profile};

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
const LIMIT_NAMES: [&str; 5] = ["train", "predict", "stream", "uploads", "models"];
const SHUTDOWN_NAMES: [&str; 5] = ["ctrlc", "signals", "grace", "mercy", "force"];

/// What the file and the environment say, the later sources winning.
pub(super) fn sources() -> anyhow::Result<Figment> {
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
pub(super) fn check_names(all: &Dict) -> anyhow::Result<()> {
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
pub(super) fn without_values(error: figment::Error) -> anyhow::Error {
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
pub(super) fn for_rocket(figment: Figment, async_threads: Option<usize>) -> anyhow::Result<RocketConfig> {
    let threads = async_threads.filter(|&n| n > 0).unwrap_or_else(|| RocketConfig::default().workers);
    ensure!(threads <= 1024, "async_threads must be at most 1024, but is {threads}");
    let figment = figment
        .merge(Serialized::global("workers", threads))
        .merge(Serialized::global("log_level", "off"))
        .merge(Serialized::global("cli_colors", false));
    RocketConfig::try_from(figment).map_err(without_values)
}
