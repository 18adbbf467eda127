//! The announcements of new jobs, by PostgreSQL's LISTEN. They are hints: the queue itself is the truth.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::RunQueryDsl;
use diesel::pg::PgConnection;

use crate::config::DatabaseUrl;
use crate::pace::Pace;
use crate::{db, queue};

/// How often the connection is looked at, at least. That reads what has arrived and does not ask the server.
const TICK: Duration = Duration::from_millis(3);

/// A connection that listens.
pub(super) struct Notifications {
    conn: PgConnection,
    pace: Pace,
}

impl Notifications {
    /// Connects and begins to listen: what is announced from now on is not missed.
    pub(super) fn listen(url: &DatabaseUrl) -> anyhow::Result<Self> {
        let mut conn = db::connect(url)?;
        diesel::sql_query(format!("LISTEN {}", queue::CHANNEL)).execute(&mut conn)?;
        Ok(Self { conn, pace: Pace::new(TICK) })
    }

    /// Waits until a job is announced, `most` has passed, or `stop` is set.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(super) fn wait(&mut self, most: Duration, stop: &AtomicBool) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < most && !stop.load(Ordering::Relaxed) {
            // All that have arrived are taken together: one look at the queue answers them.
            let announced = self.conn.notifications_iter().collect::<Result<Vec<_>, _>>()?;
            if !announced.is_empty() {
                self.pace.quicken();
                break;
            }
            thread::sleep(self.pace.pause());
        }
        Ok(())
    }
}
