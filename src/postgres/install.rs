//! The server binaries of the machine, and how they are called.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Error, IoContext};
use super::{Keep, PORT};

/// One installed PostgreSQL.
pub(super) struct Install {
    bin: PathBuf,
    /// For example "15.18".
    pub(super) version: String,
}

impl Install {
    /// The installation for `cluster`: of its major version if it exists, else the first found.
    pub(super) fn for_cluster(cluster: &Path) -> Result<Self, Error> {
        let pg_bin = env::var_os("PG_BIN").map(PathBuf::from);
        let candidates = pg_bin.clone().map_or_else(bin_dirs, |dir| vec![dir]);
        let mut installed = candidates.into_iter().filter_map(Self::probe).peekable();
        if installed.peek().is_none() {
            return Err(pg_bin.map_or(Error::NotInstalled, Error::WrongPgBin));
        }
        if !cluster.exists() {
            return installed.next().ok_or(Error::NotInstalled);
        }
        let path = cluster.join("PG_VERSION");
        let wanted = fs::read_to_string(&path).at(&path)?.trim().to_owned();
        let mut others = Vec::new();
        for install in installed {
            if install.major() == wanted {
                return Ok(install);
            }
            others.push(format!("{} ({})", install.version, install.bin.display()));
        }
        Err(Error::OtherVersion { data_dir: cluster.to_owned(), cluster: wanted, installed: others.join(", ") })
    }

    /// Asks the binary itself: a folder's name says nothing when it came by `PG_BIN` or `PATH`.
    fn probe(bin: PathBuf) -> Option<Self> {
        if !bin.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
        let version = String::from_utf8(output.stdout).ok()?.split_whitespace().nth(2)?.to_owned();
        Some(Self { bin, version })
    }

    /// "15" of "15.18", and "19" of "19beta1".
    fn major(&self) -> &str {
        let digits = self.version.bytes().take_while(u8::is_ascii_digit).count();
        &self.version[..digits]
    }

    /// The command that fills the empty folder `new`.
    pub(super) fn initdb(&self, new: &Path, keep: Keep) -> Vec<OsString> {
        // Trust, because the folder of the socket decides who may connect.
        let mut command = self.command("initdb", new);
        command.extend(["-U", "ridgeline", "--auth=trust", "--encoding=UTF8", "--no-locale"].map(OsString::from));
        if keep == Keep::Throwaway {
            command.push("--no-sync".into());
        }
        command
    }

    /// The command that runs the server. The settings are arguments, so that they hold for old
    /// data, too, and `postgresql.conf` is left to whoever wants to tune the server.
    pub(super) fn server(&self, cluster: &Path, socket_dir: &Path, keep: Keep) -> Vec<OsString> {
        let mut command = self.command("postgres", cluster);
        command.extend(["-p".into(), PORT.into(), "-k".into(), socket_dir.into()]);
        let mut settings = vec![
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "max_connections=200",
            "logging_collector=off",
            "log_destination=stderr",
            "log_timezone=UTC",
            "timezone=UTC",
            // In the data folder instead of /dev/shm, where a killed server would leave them, and where containers have little room.
            "dynamic_shared_memory_type=mmap",
        ];
        if keep == Keep::Throwaway {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"]);
        }
        for setting in settings {
            command.extend(["-c".into(), setting.into()]);
        }
        command
    }

    fn command(&self, program: &str, data: &Path) -> Vec<OsString> {
        vec![self.bin.join(program).into(), "-D".into(), data.into()]
    }
}

/// Where a server may be: `PATH`, then the folders of Debian and Red Hat, the newest major version
/// first.
fn bin_dirs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    let mut versioned: Vec<(u32, PathBuf)> = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")]
        .iter()
        .filter_map(|(parent, prefix)| Some((fs::read_dir(parent).ok()?, prefix)))
        .flat_map(|(entries, prefix)| entries.flatten().map(move |entry| (entry, prefix)))
        .filter_map(|(entry, prefix)| {
            let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    versioned.sort();
    dirs.extend(versioned.into_iter().rev().map(|(_, dir)| dir));
    dirs
}
