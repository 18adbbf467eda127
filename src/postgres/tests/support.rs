//! Servers to kill, folders to throw away, and psql to look inside.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::*;

/// The variables that turn [`holds_a_server_until_killed`] into the process that the other tests
/// kill.
const HELD_DIR: &str = "RIDGELINE_TEST_HELD_DIR";
const HELD_KEEP: &str = "RIDGELINE_TEST_HELD_KEEP";

/// Not a test of its own: does nothing unless another test starts it as a process to kill.
#[test]
fn holds_a_server_until_killed() {
    let Some(data_dir) = std::env::var_os(HELD_DIR).map(PathBuf::from) else {
        return;
    };
    let keep = if std::env::var_os(HELD_KEEP).is_some() { Keep::Throwaway } else { Keep::Durable };
    let _server = PrivatePostgres::start(&Settings { data_dir, keep }).unwrap();
    sleep(Duration::from_secs(60));
}

/// Another process that holds a private server.
pub(super) struct HeldServer {
    owner: Child,
    pub(super) url: String,
    pub(super) server_pid: u32,
}

impl HeldServer {
    pub(super) fn spawn(data_dir: &Path, keep: Keep) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = format!("{}::holds_a_server_until_killed", module_path!().split_once("::").unwrap().1);
        command.args(["--exact", &name]).env(HELD_DIR, data_dir).stdout(Stdio::null());
        if keep == Keep::Throwaway {
            command.env(HELD_KEEP, "throwaway");
        }
        command.spawn().unwrap()
    }

    pub(super) fn start(data_dir: &Path, keep: Keep) -> Self {
        let owner = Self::spawn(data_dir, keep);
        wait_until("the server runs", || running_url(data_dir).unwrap().is_some());
        let url = running_url(data_dir).unwrap().unwrap();
        Self { owner, url, server_pid: server_pid(data_dir).unwrap() }
    }

    /// With SIGKILL, which no process can prepare for.
    pub(super) fn kill(&mut self) {
        self.owner.kill().unwrap();
        self.owner.wait().unwrap();
    }
}

impl Drop for HeldServer {
    fn drop(&mut self) {
        let _ = self.owner.kill();
        let _ = self.owner.wait();
    }
}

/// A folder that goes with the test, in memory if there is room for it there.
pub(super) struct TestDir(pub(super) PathBuf);

impl TestDir {
    pub(super) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("ridgeline-postgres-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub(super) fn durable(&self) -> Settings {
        Settings { data_dir: self.0.clone(), keep: Keep::Durable }
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // After a failed test the server may still be stopping.
        for _ in 0..500 {
            if folder::remove_if_present(&self.0).is_ok() {
                break;
            }
            sleep(POLL);
        }
    }
}

pub(super) fn server_pid(data_dir: &Path) -> Option<u32> {
    let file = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    file.lines().next()?.parse().ok()
}

pub(super) fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// What psql, which comes with every server, says to one statement.
pub(super) fn psql(url: &str, statement: &str) -> String {
    let install = Install::for_cluster(Path::new("/nonexistent")).unwrap();
    // In PATH there may be only links to the server's own programs.
    let initdb = fs::canonicalize(&install.initdb(Path::new(""), Keep::Durable)[0]).unwrap();
    let output = Command::new(initdb.with_file_name("psql"))
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", statement, url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
pub(super) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let timeout = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < timeout, "not within 20 s: {what}");
        sleep(POLL);
    }
}
