//! The private PostgreSQL: a database server of our own, for when none is configured.
//!
//! It runs the server binaries that are installed on the machine, listens on a Unix socket alone,
//! in a folder that only its user may enter, and stops with this process however that ends. A server
//! that ends before can be started again in its place, see [`KeptPostgres`]. The
//! tests use it for a throwaway server. Nothing here connects to the database; that is the pool's
//! business.
//!
//! What lies in `data_dir`:
//!
//! | name | holds |
//! |---|---|
//! | `lock` | a file lock that lasts as long as the server, and the process id of its owner |
//! | `postgres/` | PostgreSQL's data directory |
//! | `postgres.new/` | the same while `initdb` fills it, so that an interrupted `initdb` leaves nothing that looks finished |
//! | `postgres.log`, `postgres.log.1` | what the server said in this run and in the one before |
//! | `socket/` | the Unix socket, unless its path would be too long; then it is in a folder of its own in `/tmp` |

mod error;
mod folder;
mod guard;
mod install;
mod keeper;
mod pid_file;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

pub use error::Error;
use error::{IoContext, log_tail};
use folder::{Lock, Log, RemoveOnDrop};
use guard::{Account, Guarded};
use install::Install;
pub use keeper::KeptPostgres;
use pid_file::PidFile;

/// PostgreSQL names its socket `.s.PGSQL.<port>`; nothing listens on the port itself.
const PORT: &str = "5432";
/// How long the server may take to be ready: after a crash it first replays its log.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(5);

/// What becomes of the data of a private server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// PostgreSQL's own, durable settings; the data stay for the next run.
    Durable,
    /// No waiting for the disk, and the folder goes when the server stops. The folder must not
    /// exist yet, so that nothing is ever removed that this module has not made.
    Throwaway,
}

/// Settings of a private server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder that holds everything of the server; made if it is missing.
    pub data_dir: PathBuf,
    /// What becomes of the data.
    pub keep: Keep,
}

/// A running private server. Dropping it stops the server and waits until it has ended.
#[derive(Debug)]
#[must_use = "the server stops when this is dropped"]
pub struct PrivatePostgres {
    url: String,
    command: ServerCommand,
    // The fields are dropped in this order: the server ends, then its folders go, then the lock.
    server: Guarded,
    folders: RemoveOnDrop,
    lock: Lock,
}

/// What it takes to start the server of a folder.
#[derive(Debug)]
struct ServerCommand {
    arguments: Vec<OsString>,
    account: Option<Account>,
    cluster: PathBuf,
    socket_dir: PathBuf,
    log: Log,
}

impl ServerCommand {
    fn spawn(&self, lock: &Lock, folders: &RemoveOnDrop) -> Result<Guarded, Error> {
        let (account, log) = (self.account.as_ref(), &self.log.file);
        Guarded::spawn(&self.arguments, account, lock.file(), log, &folders.0).at("/bin/sh")
    }
}

impl PrivatePostgres {
    /// Starts the server, creating its data first if there are none, and waits until it takes
    /// connections.
    ///
    /// Takes over what a crashed run left, waiting for its server if that is still stopping.
    ///
    /// # Errors
    /// See [`Error`]; each says what to do about it.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        let began = Instant::now();
        let mut folders = RemoveOnDrop::default();
        let data_dir = folder::create(settings, &mut folders)?;
        let lock = Lock::acquire(&data_dir)?;
        let cluster = data_dir.join("postgres");
        let account = Account::for_server(&cluster)?;
        if let Some(account) = &account {
            if settings.keep == Keep::Throwaway {
                // The guard removes the folder if we cannot, and the guard is not root.
                account.give(&data_dir)?;
            }
            account.check_reaches(&data_dir)?;
        }
        folder::wait_for_previous_server(&cluster)?;
        let install = Install::for_cluster(&cluster)?;
        let log = Log::create(&data_dir)?;

        if !cluster.exists() {
            let new = data_dir.join("postgres.new");
            folder::remove_if_present(&new).at(&new)?;
            folder::create_private(&new, account.as_ref())?;
            let initdb = install.initdb(&new, settings.keep);
            let mut initdb =
                Guarded::spawn(&initdb, account.as_ref(), lock.file(), &log.file, &folders.0).at("/bin/sh")?;
            let status = initdb.wait().at("/bin/sh")?;
            if !status.success() {
                return Err(log.failure("initdb", &status.to_string()));
            }
            fs::rename(&new, &cluster).at(&cluster)?;
            File::open(&data_dir).and_then(|folder| folder.sync_all()).at(&data_dir)?;
        }

        let socket_dir = folder::create_for_socket(&data_dir, account.as_ref(), &mut folders)?;
        let arguments = install.server(&cluster, &socket_dir, settings.keep);
        let command = ServerCommand { arguments, account, cluster, socket_dir, log };
        let server = command.spawn(&lock, &folders)?;
        let mut started = Self { url: url(&command.socket_dir), command, server, folders, lock };
        let timeout = Instant::now() + START_TIMEOUT;
        // The file of an earlier server is gone by now, so whatever it says is of the server just
        // started.
        while !started.is_ready()? {
            if let Some(status) = started.ended().at("/bin/sh")? {
                return Err(started.command.log.failure("postgres", &status.to_string()));
            }
            if Instant::now() > timeout {
                return Err(started.command.log.failure("postgres", "not ready in time"));
            }
            sleep(POLL);
        }
        log::info!(
            "no database is configured: started a private PostgreSQL {} in {} in {:.1} s; \
             set database_url to use a server of your own",
            install.version,
            data_dir.display(),
            began.elapsed().as_secs_f64()
        );
        Ok(started)
    }

    /// Whether the server that was started last takes connections.
    fn is_ready(&self) -> Result<bool, Error> {
        Ok(PidFile::read(&self.command.cluster)?.is_some_and(|file| file.ready))
    }

    /// How the server ended, if it has.
    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.server.try_wait()
    }

    /// The last lines of the server's log.
    fn last_words(&self) -> String {
        log_tail(self.command.log.path())
    }

    /// Starts the server again after it has ended, where it was; it takes connections some time later.
    ///
    /// # Errors
    /// See [`Error`].
    fn start_again(&mut self) -> Result<(), Error> {
        let command = &self.command;
        folder::wait_for_previous_server(&command.cluster)?;
        folder::clear(&command.socket_dir)?;
        self.server = command.spawn(&self.lock, &self.folders)?;
        Ok(())
    }

    /// The URL that libpq, and so Diesel, connects to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the server and waits until it has ended, as dropping does.
    pub fn stop(self) {
        drop(self);
    }
}

/// The URL of the private server that another process runs in `data_dir`, if one is running and
/// takes connections.
///
/// # Errors
/// [`Error::Io`] when the folder may not be read: only the server's user and root may.
pub fn running_url(data_dir: &Path) -> Result<Option<String>, Error> {
    let file = PidFile::read(&data_dir.join("postgres"))?;
    Ok(file.filter(|file| file.ready && file.is_postgres_alive()).map(|file| url(&file.socket_dir)))
}

/// Where a private server keeps its data unless configured: `/var/lib/ridgeline` as root, else
/// `$XDG_DATA_HOME/ridgeline`, else `~/.local/share/ridgeline`.
///
/// # Errors
/// [`Error::NoHome`] when the user has no home folder.
pub fn default_data_dir() -> Result<PathBuf, Error> {
    let user = Uid::effective();
    if user.is_root() {
        return Ok(PathBuf::from("/var/lib/ridgeline"));
    }
    // The XDG specification says to ignore relative paths.
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data_home = absolute("XDG_DATA_HOME").or_else(|| {
        let home = absolute("HOME").or_else(|| User::from_uid(user).ok().flatten().map(|user| user.dir))?;
        Some(home.join(".local/share"))
    });
    Ok(data_home.ok_or(Error::NoHome)?.join("ridgeline"))
}

/// The user and database names are lower-case so that nobody has to quote them.
fn url(socket_dir: &Path) -> String {
    let mut host = String::new();
    for &byte in socket_dir.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            host.push(char::from(byte));
        } else {
            host.push_str(&format!("%{byte:02X}"));
        }
    }
    // With the port left out, libpq would take the user's PGPORT.
    format!("postgres:///postgres?host={host}&port={PORT}&user=ridgeline")
}
