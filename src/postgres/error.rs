//! What can keep a private server from starting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither `PG_BIN`, `PATH` nor the usual folders hold a server.
    #[error(
        "no PostgreSQL server is installed (initdb and postgres are neither in PG_BIN, PATH nor /usr/lib/postgresql): \
         install one (apt install postgresql), or set database_url to a server that runs elsewhere"
    )]
    NotInstalled,
    /// `PG_BIN` is set, and wrong.
    #[error("PG_BIN is {}, where there is no working initdb and postgres", .0.display())]
    WrongPgBin(PathBuf),
    /// The data were written by a major version of PostgreSQL that is not installed (any more).
    #[error(
        "the data in {} are of PostgreSQL {cluster}, but what is installed is {installed}: install the server of that \
         version (apt install postgresql-{cluster}), or move the data to the new one with pg_upgrade",
        .data_dir.display()
    )]
    OtherVersion {
        /// PostgreSQL's data directory.
        data_dir: PathBuf,
        /// The major version that wrote it.
        cluster: String,
        /// The versions that were found, or "none".
        installed: String,
    },
    /// Another process has a private server in this folder.
    #[error("process {pid} already runs a private PostgreSQL in {}", .data_dir.display())]
    AlreadyRunning {
        /// The folder that both want.
        data_dir: PathBuf,
        /// The process that has it.
        pid: u32,
    },
    /// The server of an earlier run does not end, or runs where we cannot see it.
    #[error(
        "the PostgreSQL of an earlier run, or of another container, is still using {} after {} seconds",
        .data_dir.display(), .timeout.as_secs()
    )]
    StillStopping {
        /// The folder that it uses.
        data_dir: PathBuf,
        /// How long we have waited.
        timeout: Duration,
    },
    /// PostgreSQL refuses to run as root, and the user that it runs as instead may not enter a
    /// parent folder.
    #[error(
        "PostgreSQL does not run as root, and the user {user} may not enter {}: allow it (chmod o+x {}), or choose \
         another data_dir than {}", .parent.display(), .parent.display(), .data_dir.display()
    )]
    Unreachable {
        /// The user that the server would run as.
        user: String,
        /// The folder that it may not enter.
        parent: PathBuf,
        /// The folder that it has to reach.
        data_dir: PathBuf,
    },
    /// As root, and there is no other user.
    #[error("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as")]
    NoAccount,
    /// `initdb` or the server itself ended.
    #[error("{program} failed ({status}); the end of {}:\n{last_lines}", .log.display())]
    Failed {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The file it wrote to.
        log: PathBuf,
        /// The last lines of that file.
        last_lines: String,
    },
    /// There is no place for the data.
    #[error("this user has no home folder for the data: set data_dir, or set database_url to a server of your own")]
    NoHome,
    /// A file or folder could not be used.
    #[error("cannot use {}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Adds the path to an I/O error, which does not carry it.
pub(super) trait IoContext<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { path: path.as_ref().to_owned(), source })
    }
}

/// The last lines of a log file, or why there are none.
pub(super) fn log_tail(path: &Path) -> String {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return error.to_string(),
    };
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
