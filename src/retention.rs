//! Drops the rows of datasets that no job has needed for the configured time. The models that were trained on them stay. And
//! drops what is stored of uploads that have been abandoned: the process that received them has ended.
//!
//! Every service does it in the background, and several on one database do not get in each other's way. The database's clock
//! decides.

use std::time::Duration;

use diesel::Connection;
use diesel::pg::PgConnection;
use tokio::time::sleep;

use crate::db::{self, Pool, datasets};

/// How often is looked: a small part of the time that datasets are kept, between these two.
const PERIOD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const LOOKS: u32 = 600;
/// Datasets that are dropped in one transaction, so that none lasts long.
const BATCH: i64 = 20;

/// How often uploads are looked for that have been abandoned.
const UPLOADS_PERIOD: Duration = Duration::from_secs(60);

/// Drops, now and then, what is stored of abandoned uploads; for ever.
pub async fn drop_abandoned_uploads(pool: Pool) {
    loop {
        match pool.run(|conn| Ok(datasets::drop_abandoned(conn)?)).await {
            Ok(0) => {}
            Ok(n) => log::info!("dropped {n} uploads that had been abandoned"),
            Err(error) => log::warn!("abandoned uploads could not be dropped: {:#}", anyhow::Error::from(error)),
        }
        sleep(UPLOADS_PERIOD).await;
    }
}

/// Drops, now and then, the datasets whose jobs have all ended `age` ago or before; for ever.
pub async fn run(pool: Pool, age: Duration) {
    loop {
        match sweep(&pool, age).await {
            Ok(0) => {}
            Ok(n) => log::info!("dropped {n} datasets whose jobs ended more than {} s ago", age.as_secs()),
            Err(error) => log::warn!("old datasets could not be dropped: {:#}", anyhow::Error::from(error)),
        }
        sleep((age / LOOKS).clamp(PERIOD.0, PERIOD.1)).await;
    }
}

/// Drops all that are due; returns how many.
async fn sweep(pool: &Pool, age: Duration) -> Result<usize, db::Error> {
    let mut dropped = 0;
    loop {
        let batch =
            move |conn: &mut PgConnection| Ok(conn.transaction(|conn| datasets::drop_unneeded(conn, age, BATCH))?);
        let n = pool.run(batch).await?;
        dropped += n;
        if n == 0 {
            return Ok(dropped);
        }
    }
}
