//! PostgreSQL's `postmaster.pid`, and what Linux says about the process it names.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{Error, IoContext};

const NAME: &str = "postmaster.pid";

/// The lines of `postmaster.pid` that matter here.
pub(super) struct PidFile {
    pid: u32,
    /// The folder of the Unix socket.
    pub(super) socket_dir: PathBuf,
    /// Whether the server took connections when it last wrote the file.
    pub(super) ready: bool,
}

impl PidFile {
    /// Reads the file, if there is one; a server that is starting has not written all of it.
    pub(super) fn read(cluster: &Path) -> Result<Option<Self>, Error> {
        let path = cluster.join(NAME);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.at(&path)?,
        };
        // 1 process id, 2 data directory, 3 start time, 4 port, 5 socket folder, 6 address, 7
        // shared memory, 8 status
        let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        let line = |number: usize| lines.get(number - 1).copied().unwrap_or_default();
        Ok(Some(Self {
            pid: String::from_utf8_lossy(line(1)).trim().parse().unwrap_or(0),
            socket_dir: PathBuf::from(OsStr::from_bytes(line(5))),
            ready: line(8).trim_ascii() == b"ready",
        }))
    }

    pub(super) fn remove(cluster: &Path) -> Result<(), Error> {
        let path = cluster.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.at(&path),
        }
    }

    /// Whether the process still runs and is a PostgreSQL server: a crashed server leaves its file
    /// behind, saying "ready", and its process id may be another program's by now.
    pub(super) fn is_postgres_alive(&self) -> bool {
        program_of(self.pid).is_some_and(|name| name == "postgres" || name == "postmaster")
    }
}

/// The file name of the program that a process runs; `None` if there is no such process, or only
/// its zombie.
pub(super) fn program_of(pid: u32) -> Option<OsString> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = arguments.split(|&byte| byte == 0).next()?;
    Some(Path::new(OsStr::from_bytes(program)).file_name()?.to_owned())
}
