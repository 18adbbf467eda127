//! What a worker does so that a job that takes too much memory ends this worker, and nothing else.

use std::fs;

use anyhow::Context;
use rocket::data::ByteUnit;

/// Offers this process to the kernel as the first to end when the machine runs out of memory: its job goes back into the
/// queue, while the API and the database would take their clients along.
pub(super) fn go_first() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "1000") {
        log::warn!("the kernel does not take this worker's offer to be the first to end when memory runs out: {error}");
    }
}

/// The memory that this process holds and has written to, files that it has mapped not counted.
///
/// # Errors
/// When the system does not tell.
pub(super) fn in_use() -> anyhow::Result<ByteUnit> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let words = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next());
    let kibibytes: u64 = words.context("/proc/self/status has no RssAnon")?.parse()?;
    Ok(ByteUnit::Kibibyte(kibibytes))
}
