//! `ridgeline serve`: the database, the API and the workers, started in this order and stopped in the reverse one.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, ensure};
use diesel::pg::PgConnection;
use rocket::fairing::AdHoc;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::config::{Config, DatabaseUrl};
use crate::db::{self, Pool, keys};
use crate::model_cache::ModelCache;
use crate::postgres::{self, Keep, KeptPostgres, PrivatePostgres, Settings};
use crate::ridge::{allocator, blas};
use crate::supervisor::Supervisor;
use crate::watch::Watch;
use crate::web::connections::raise_descriptor_limit;
use crate::{retention, web};

/// How long the start waits for a database that is not there yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long queries that are still under way may take after the last reply.
const LAST_QUERIES: Duration = Duration::from_secs(3);

/// Descriptors that are no connections: the log, the event loop, workers, files.
const OTHER_DESCRIPTORS: u64 = 128;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the database, its migrations or the listening socket cannot be had.
pub fn run(mut config: Config) -> anyhow::Result<()> {
    allocator::give_back_large();
    // Requests are the threads here: none of them starts more for its own prediction.
    blas::use_one_thread();
    // Held until everything that uses it has ended.
    let (url, private) = database(&config)?;
    let kept = private.map(KeptPostgres::new).transpose();
    let _kept = kept.context("starting the thread that keeps the private PostgreSQL running")?;
    let mut conn = db::connect_and_migrate(&url, PATIENCE, &AtomicBool::new(false))?;
    check_access(&config, &mut conn)?;
    drop(conn);
    limit_connections(&mut config)?;
    let pool = Pool::new(&url, config.pool_size, config.pool_timeout);
    let runtime = runtime(&config)?;
    let cache = ModelCache::new(config.models_limit);
    let watch = Watch::start(url, cache.clone())?;
    let result = runtime.block_on(launch(config, pool, watch, cache));
    // A query that hangs must not keep the service from ending.
    runtime.shutdown_timeout(LAST_QUERIES);
    log::info!("the service has stopped");
    result
}

/// Takes as many descriptors as the system grants, and no more connections than these suffice for.
fn limit_connections(config: &mut Config) -> anyhow::Result<()> {
    let descriptors = raise_descriptor_limit().context("the limit on open files")?;
    let others = OTHER_DESCRIPTORS + u64::from(config.pool_size);
    let most = u32::try_from(descriptors.saturating_sub(others)).unwrap_or(u32::MAX);
    ensure!(most >= 10, "the limit on open files is {descriptors}, which is too low to serve with");
    if most < config.connection_limit {
        log::warn!("the system grants {descriptors} open files, so connection_limit is lowered to {most}");
        config.connection_limit = most;
    }
    log::info!("at most {} connections, of {descriptors} open files", config.connection_limit);
    Ok(())
}

/// The threads that answer requests. `rocket::execute` would read its own configuration, in which `workers` are threads.
fn runtime(config: &Config) -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // By this name Rocket knows its own runtime.
    builder
        .thread_name("rocket-worker-thread")
        .worker_threads(config.rocket.workers)
        .max_blocking_threads(config.rocket.max_blocking);
    builder.enable_all().build().context("starting the threads of the service")
}

/// The configured database, or else the private one, started.
fn database(config: &Config) -> anyhow::Result<(DatabaseUrl, Option<PrivatePostgres>)> {
    if let Some(url) = &config.database_url {
        return Ok((url.clone(), None));
    }
    let settings = Settings { data_dir: config.data_dir.clone(), keep: Keep::Durable };
    let private = PrivatePostgres::start(&settings).context("the private PostgreSQL (data_dir)")?;
    Ok((DatabaseUrl::parse(private.url())?, Some(private)))
}

/// The configured database, or else the private one: joined if it is running, else started.
///
/// # Errors
/// When neither can be had.
pub fn database_for_command(config: &Config) -> anyhow::Result<(DatabaseUrl, Option<PrivatePostgres>)> {
    if config.database_url.is_none()
        && let Some(url) = postgres::running_url(&config.data_dir)?
    {
        return Ok((DatabaseUrl::parse(&url)?, None));
    }
    database(config)
}

/// Refuses to serve anybody but this machine while there is no API key, and says who may call.
fn check_access(config: &Config, conn: &mut PgConnection) -> anyhow::Result<()> {
    let address = config.rocket.address;
    if keys::any(conn)? {
        log::info!("API keys are in use: calls need one, except /health/* and /");
        return Ok(());
    }
    ensure!(
        address.is_loopback(),
        "address is {address}, but there is no API key, so that everybody who reaches it could use the service: make a \
         key first (ridgeline key add NAME), or serve this machine alone (address = \"127.0.0.1\")"
    );
    log::info!(
        "there is no API key: everybody on this machine may call, and nobody else; `ridgeline key add NAME` makes one"
    );
    Ok(())
}

/// `ridgeline migrate`: runs the pending migrations and ends.
///
/// # Errors
/// When the database cannot be had, or a migration fails.
pub fn migrate(config: &Config) -> anyhow::Result<()> {
    // Held until the connection is closed.
    let (url, _private) = database_for_command(config)?;
    drop(db::connect_and_migrate(&url, PATIENCE, &AtomicBool::new(false))?);
    log::info!("the database's migrations are current");
    Ok(())
}

/// The database that a worker joins: the configured one, or the private one that a `ridgeline serve` runs.
///
/// # Errors
/// When there is neither.
pub fn database_to_join(config: &Config) -> anyhow::Result<DatabaseUrl> {
    if let Some(url) = &config.database_url {
        return Ok(url.clone());
    }
    let dir = config.data_dir.display();
    let url = postgres::running_url(&config.data_dir)?.with_context(|| {
        format!(
            "no database: set database_url (or DATABASE_URL), or start `ridgeline serve` with the same data_dir ({dir})"
        )
    })?;
    DatabaseUrl::parse(&url)
}

async fn launch(config: Config, pool: Pool, watch: Watch, cache: ModelCache) -> anyhow::Result<()> {
    let (retention, shared) = (config.dataset_retention, pool.clone());
    let n_workers = config.workers;
    // Asked for once: after an upgrade in place the kernel would call it deleted.
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let keys = if config.rocket.tls_enabled() { "address, port, tls" } else { "address, port" };
    let workers = Arc::new(Mutex::new(None));
    let started = Arc::clone(&workers);
    let rocket = web::rocket(config, pool, watch, cache)?.attach(AdHoc::on_liftoff("workers", move |rocket| {
        Box::pin(async move {
            let (address, port) = (rocket.config().address, rocket.config().port);
            let scheme = if rocket.config().tls_enabled() { "https" } else { "http" };
            log::info!("listening on {scheme}://{}", std::net::SocketAddr::new(address, port));
            *started.lock().await = Some(Supervisor::start(&program, n_workers));
        })
    }));
    let mut sweepers = vec![tokio::spawn(retention::drop_abandoned_uploads(shared.clone()))];
    sweepers.extend(retention.map(|age| tokio::spawn(retention::run(shared, age))));
    let launched = rocket.launch().await;
    sweepers.iter().for_each(JoinHandle::abort);
    if let Some(workers) = workers.lock().await.take() {
        workers.stop().await;
    }
    match launched {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            rocket::error::ErrorKind::Shutdown(..) => {
                log::warn!("some requests were cut off by the shutdown");
                Ok(())
            }
            kind => Err(anyhow::anyhow!("{kind}").context(format!("the service cannot start ({keys})"))),
        },
    }
}
