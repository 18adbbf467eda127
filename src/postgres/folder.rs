//! The data folder: making it, locking it, and what lies in it beside PostgreSQL's own files.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use super::error::{Error, IoContext, log_tail};
use super::guard::Account;
use super::pid_file::{PidFile, program_of};
use super::{Keep, POLL, PORT, Settings};

/// The longest socket path that Linux takes (`sun_path` less its final NUL).
const LONGEST_SOCKET_PATH: usize = 107;
/// How long a server of a run that has died may take to write its last checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes the data folder if need be and returns its absolute path without symbolic links.
pub(super) fn create(settings: &Settings, folders: &mut RemoveOnDrop) -> Result<PathBuf, Error> {
    let path = &settings.data_dir;
    let is_new = !path.exists();
    if !is_new && settings.keep == Keep::Throwaway {
        return Err(Error::Io { path: path.clone(), source: io::ErrorKind::AlreadyExists.into() });
    }
    if is_new {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).at(parent)?;
        }
        DirBuilder::new().mode(0o700).create(path).at(path)?;
        if settings.keep == Keep::Throwaway {
            folders.0.push(path.canonicalize().at(path)?);
        }
        if Uid::effective().is_root() {
            // The server's user has to pass through to its own folders. Set, not created so: the
            // umask may forbid it.
            fs::set_permissions(path, fs::Permissions::from_mode(0o711)).at(path)?;
        }
    }
    path.canonicalize().at(path)
}

/// The lock of a data folder, released on drop.
///
/// The guard shares it (see [`Guarded`](super::guard::Guarded)), so that it lasts until the server
/// has ended, even if this process has died before.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Locks the folder, waiting while the server of an owner that has died is still stopping.
    pub(super) fn acquire(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("lock");
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).at(&path)?;
        let timeout = Instant::now() + STOP_TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let owner = fs::read_to_string(&path).at(&path)?.trim().parse::<u32>().ok();
                    if let Some(pid) = owner.filter(|&pid| program_of(pid).is_some()) {
                        return Err(Error::AlreadyRunning { data_dir: data_dir.to_owned(), pid });
                    }
                    if Instant::now() > timeout {
                        return Err(Error::StillStopping { data_dir: data_dir.to_owned(), timeout: STOP_TIMEOUT });
                    }
                    sleep(POLL);
                }
                Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
            }
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).at(&path)?;
        Ok(Self(file))
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that another thread is just starting has
        // a copy of it.
        if let Err(error) = self.0.unlock() {
            log::warn!("cannot unlock the folder of the private PostgreSQL: {error}");
        }
    }
}

/// Waits for a server that has outlived its guard, and removes the pid file of one that has
/// crashed.
///
/// PostgreSQL would judge such a file by its process id alone, which another process may have by
/// now, above all in a container that has been restarted. With the folder locked, a file that names
/// no PostgreSQL is certainly stale.
pub(super) fn wait_for_previous_server(cluster: &Path) -> Result<(), Error> {
    let timeout = Instant::now() + STOP_TIMEOUT;
    while PidFile::read(cluster)?.is_some_and(|file| file.is_postgres_alive()) {
        if Instant::now() > timeout {
            return Err(Error::StillStopping { data_dir: cluster.to_owned(), timeout: STOP_TIMEOUT });
        }
        sleep(POLL);
    }
    PidFile::remove(cluster)
}

/// Makes the folder of the socket anew, so that no stale socket or lock file of PostgreSQL's is in
/// it.
pub(super) fn create_for_socket(
    data_dir: &Path,
    account: Option<&Account>,
    folders: &mut RemoveOnDrop,
) -> Result<PathBuf, Error> {
    let own = data_dir.join("socket");
    let socket_path = own.join(format!(".s.PGSQL.{PORT}"));
    remove_if_present(&own).at(&own)?;
    // PostgreSQL and libpq take several folders, separated by commas.
    let is_plain = !own.as_os_str().as_bytes().iter().any(|byte| b",\"\n".contains(byte));
    if is_plain && socket_path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        create_private(&own, account)?;
        return Ok(own);
    }
    // Never a folder that is there already: in /tmp anybody may have made it.
    let mut short;
    let mut number = 0;
    loop {
        short = PathBuf::from(format!("/tmp/ridgeline-{}-{number}", std::process::id()));
        match create_private(&short, account) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => number += 1,
            result => break result?,
        }
    }
    folders.0.push(short.clone());
    Ok(short)
}

/// Removes the socket and its lock file, which a server that has crashed leaves behind.
pub(super) fn clear(socket_dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(socket_dir).at(socket_dir)? {
        let path = entry.at(socket_dir)?.path();
        fs::remove_file(&path).at(&path)?;
    }
    Ok(())
}

/// Makes a folder that only the server's user (and root) may enter.
pub(super) fn create_private(path: &Path, account: Option<&Account>) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).at(path)?;
    account.map_or(Ok(()), |account| account.give(path))
}

pub(super) fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Folders that go with the server, or with a start that fails.
#[derive(Debug, Default)]
pub(super) struct RemoveOnDrop(pub(super) Vec<PathBuf>);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = remove_if_present(path) {
                log::warn!("{} is left behind: {error}", path.display());
            }
        }
    }
}

/// The file that `initdb` and the server write to: one for each run, and the one before is kept.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    pub(super) file: File,
}

impl Log {
    pub(super) fn create(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("postgres.log");
        match fs::rename(&path, data_dir.join("postgres.log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { path, source: error });
            }
            _ => {}
        }
        let file = File::options().append(true).create_new(true).mode(0o600).open(&path).at(&path)?;
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn failure(&self, program: &'static str, status: &str) -> Error {
        Error::Failed { program, status: status.to_owned(), log: self.path.clone(), last_lines: log_tail(&self.path) }
    }
}
