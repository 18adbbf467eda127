//! A process of the real binary, with its output collected.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BINARY: &str = env!("CARGO_BIN_EXE_ridgeline");
/// How long anything that a test waits for may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `condition`; fails when it does not come about.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The real binary in a folder without a `Rocket.toml`, with nothing of this process's configuration.
pub(crate) fn ridgeline(arguments: &[&str]) -> Command {
    let mut command = clean(BINARY);
    command.args(arguments);
    command
}

/// The same with no more than so many files open at once.
pub(crate) fn ridgeline_with_descriptors(arguments: &[&str], most: u32) -> Command {
    let mut command = clean("sh");
    command.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), BINARY]).args(arguments);
    command
}

/// A program with nothing of this process's configuration.
pub(super) fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_ours = ["ROCKET_", "RIDGELINE_", "PG"].iter().any(|prefix| name.starts_with(prefix));
        if is_ours || name == "DATABASE_URL" || name.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// A running process; it is killed if a test leaves it behind.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (output, lines) = (child.stdout.take().unwrap(), Arc::clone(&log));
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { child, log, reader: Some(reader) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// How many files and connections it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Everything that it has written so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the log says `words`; it arrives a moment after what it speaks of.
    #[track_caller]
    pub(crate) fn expect_log(&self, words: &str) {
        wait_until(&format!("the log says {words:?}"), || self.log().contains(words));
    }

    /// The part behind `words` of the first line that holds them, once it is there.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, words: &str) -> String {
        let mut found = None;
        wait_until(&format!("the log says {words:?}"), || {
            let ended = self.child.try_wait().unwrap();
            found = self.log().lines().find_map(|line| Some(line.split_once(words)?.1.to_owned()));
            assert!(found.is_some() || ended.is_none(), "the process ended: {ended:?}\n{}", self.log());
            found.is_some()
        });
        found.unwrap()
    }

    /// What the kernel says of the process under `name`, in kibibytes.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the process has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// The exit code and all of the log of a process that ends by itself and leaves no other behind.
    #[track_caller]
    pub(crate) fn outcome(&mut self) -> (Option<i32>, String) {
        let status = self.wait();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status.code(), self.log())
    }

    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The processes that it has started and that still run.
    pub(crate) fn children(&self) -> Vec<Pid> {
        children_of(Pid::from_raw(self.id() as i32))
    }
}

/// The processes that a process has started and that still run.
pub(crate) fn children_of(process: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap())).collect::<Vec<_>>())
        .collect()
}

/// Whether a process has not ended. A zombie has: it only waits for whoever inherited it to notice.
pub(crate) fn is_running(process: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of process {} ---\n{}", self.id(), self.log());
        }
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGTERM);
            let start = Instant::now();
            while self.child.try_wait().unwrap().is_none() {
                if start.elapsed() > Duration::from_secs(20) {
                    self.kill();
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
