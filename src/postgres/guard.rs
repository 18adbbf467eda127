//! Running a program so that it ends with us, and as a user that PostgreSQL accepts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::unistd::{Gid, Uid, User};

use super::error::{Error, IoContext};

/// The guard: a shell that owns the program ("$@" from the third on) and stops it when its standard
/// input ends.
///
/// The other end of that pipe is ours alone, so it ends when we close it and when we die, by
/// SIGKILL as well. Then the second process of the guard interrupts the program (for PostgreSQL: a
/// fast shutdown), again and again, because a program that has only just begun ignores the signal,
/// and removes the folders $1 and $2. SIGUSR1 ends it when the program has ended by itself.
///
/// Standard output is the lock of the data folder. The guard holds it as long as the program runs;
/// the program does not inherit it, its output goes to standard error.
///
/// The other signals are ignored because a terminal or a service manager may send them to every
/// process at once, and the server is to outlive its clients.
const GUARD: &str = r#"
one=$1 two=$2; shift 2
exec 3<&0 </dev/null
"$@" 3<&- >&2 & program=$!
(
    trap '' HUP INT TERM
    read -r _ <&3
    trap '' USR1
    while kill -INT "$program"; do sleep 0.02; done
    rm -rf -- "$one" "$two"
) >/dev/null 2>&1 & watcher=$!
trap '' HUP INT TERM
exec 3<&-
wait "$program"; status=$?
kill -USR1 "$watcher" 2>/dev/null
wait "$watcher"
exit "$status"
"#;

/// A program that stops when this is dropped, and when this process ends in any other way.
#[derive(Debug)]
pub(super) struct Guarded {
    guard: Child,
}

impl Guarded {
    /// Starts `command` with its output in `log`. `remove` (at most two folders) goes when we end,
    /// not when the program ends by itself.
    pub(super) fn spawn(
        command: &[OsString],
        account: Option<&Account>,
        lock: &File,
        log: &File,
        remove: &[PathBuf],
    ) -> io::Result<Self> {
        let mut shell = shell(account, GUARD);
        for index in 0..2 {
            shell.arg(remove.get(index).map_or("".as_ref(), |path| path.as_os_str()));
        }
        shell.args(command).stdin(Stdio::piped()).stdout(lock.try_clone()?).stderr(log.try_clone()?);
        Ok(Self { guard: shell.spawn()? })
    }

    /// How the program ended, if it has.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.guard.try_wait()
    }

    /// Waits until the program ends by itself.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        // `Child::wait` closes the pipe, which would stop the program.
        let pipe = self.guard.stdin.take();
        let status = self.guard.wait();
        drop(pipe);
        status
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Closes the pipe first.
        if let Err(error) = self.guard.wait() {
            log::warn!("cannot wait for the private PostgreSQL to stop: {error}");
        }
    }
}

/// The user that the server runs as when we are root.
#[derive(Debug)]
pub(super) struct Account {
    uid: Uid,
    gid: Gid,
    name: String,
}

impl Account {
    /// `None` unless we are root. PostgreSQL insists on owning its data, so the owner of an existing
    /// cluster comes first.
    pub(super) fn for_server(cluster: &Path) -> Result<Option<Self>, Error> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        if let Ok(metadata) = fs::metadata(cluster)
            && metadata.uid() != 0
        {
            let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
            let user = User::from_uid(uid).ok().flatten();
            let name = user.map_or(uid.to_string(), |user| user.name);
            return Ok(Some(Self { uid, gid, name }));
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Some(Self { uid: user.uid, gid: user.gid, name: user.name }))
            .ok_or(Error::NoAccount)
    }

    /// Makes the account own a folder.
    pub(super) fn give(&self, path: &Path) -> Result<(), Error> {
        chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())).at(path)
    }

    /// Checks that the account may enter `data_dir`, by trying it: the permission bits are not the
    /// whole truth.
    pub(super) fn check_reaches(&self, data_dir: &Path) -> Result<(), Error> {
        let enters = |path: &Path| -> Result<bool, Error> {
            let output = shell(Some(self), r#"cd -- "$1""#).arg(path).stdin(Stdio::null()).output().at("/bin/sh")?;
            Ok(output.status.success())
        };
        if enters(data_dir)? {
            return Ok(());
        }
        let mut parents: Vec<&Path> = data_dir.ancestors().collect();
        while let Some(parent) = parents.pop() {
            if !enters(parent)? {
                let (user, parent, data_dir) = (self.name.clone(), parent.to_owned(), data_dir.to_owned());
                return Err(Error::Unreachable { user, parent, data_dir });
            }
        }
        Ok(())
    }
}

/// A shell that runs `script` as the account, in a process group of its own, which Ctrl-C does not
/// reach.
fn shell(account: Option<&Account>, script: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "ridgeline-guard"]).current_dir("/").process_group(0);
    // The server needs nothing of our environment, which may hold secrets, and PG* variables would
    // change what it does.
    shell.env_clear().env("LC_ALL", "C");
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        shell.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    if let Some(account) = account {
        // The standard library drops the supplementary groups of root as well.
        shell.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    shell
}
