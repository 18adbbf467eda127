//! How often something is looked at that cannot be waited for.

use std::time::{Duration, Instant};

/// The shortest pause.
const SHORTEST: Duration = Duration::from_micros(200);
/// How many pauses there are in the time since the last news: looking takes microseconds, and news are seldom alone.
const PATIENCE: u32 = 300;

/// The pauses between looks at a connection that news arrive on: short after news, and ever longer without. So who has waited for
/// long waits a little longer, and who is in a hurry does not.
#[derive(Debug)]
pub(crate) struct Pace {
    last_news: Instant,
    longest: Duration,
}

impl Pace {
    /// Begins with the shortest pause, and goes on to pauses of `longest`.
    pub(crate) fn new(longest: Duration) -> Self {
        Self { last_news: Instant::now(), longest }
    }

    /// Begins again: there are news, or there will be soon.
    pub(crate) fn quicken(&mut self) {
        self.last_news = Instant::now();
    }

    /// How long the next pause is.
    pub(crate) fn pause(&self) -> Duration {
        (self.last_news.elapsed() / PATIENCE).max(SHORTEST).min(self.longest)
    }
}
