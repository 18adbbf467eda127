//! Folders that go with the test that made them, or with the next run if that test could not.

use std::fs::{read_dir, remove_dir_all};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "ridgeline-test-";

/// In memory where there is room for it there. PostgreSQL's user must be able to reach it, so the clone is no place for it.
fn parent() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Removes the folders of runs that were killed: their names hold the ids of processes that are no more.
fn sweep() {
    for entry in read_dir(parent()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another run may be sweeping as well.
            let _gone = remove_dir_all(entry.path());
        }
    }
}

/// The path of a folder that does not exist yet; whoever makes it removes it.
pub(crate) fn new_path() -> PathBuf {
    static SWEPT: Once = Once::new();
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    SWEPT.call_once(sweep);
    parent().join(format!("{PREFIX}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)))
}

/// A folder, or the place for one, that is removed with everything in it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(new_path())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.0.exists() {
            remove_dir_all(&self.0).unwrap();
        }
    }
}
