//! Random kills of workers, API and PostgreSQL under a steady load, and the accounting afterwards.
//!
//! `RIDGELINE_CHAOS_SECONDS` says how long (60 if it is not set), and `RIDGELINE_CHAOS_SEED` has the faults of an earlier run
//! come again. The figures go to standard error, whether the test passes or not.

mod load;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::RwLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::support::{Process, Server, Service, Settings, execute, record_changes, value, wait_until};
use load::Load;

/// What happens to the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillWorker,
    FreezeWorker,
    KillApi,
    StopApi,
    KillDatabase,
    QuitDatabase,
    StopDatabase,
    CutConnections,
}

impl Fault {
    const ALL: [(Self, &'static str); 8] = [
        (Self::KillWorker, "a worker killed"),
        (Self::FreezeWorker, "a worker frozen for up to 3 s"),
        (Self::KillApi, "the API killed"),
        (Self::StopApi, "the API stopped"),
        (Self::KillDatabase, "PostgreSQL killed"),
        (Self::QuitDatabase, "PostgreSQL stopped at once"),
        (Self::StopDatabase, "PostgreSQL stopped for up to 2 s"),
        (Self::CutConnections, "all connections cut"),
    ];
    /// Those that may come on top of another.
    const ON_TOP: [Self; 2] = [Self::KillWorker, Self::KillApi];
}

/// The processes, and whoever starts those again that have ended.
struct Arena<'a> {
    server: Server,
    service: Service,
    /// A worker that no service keeps running.
    worker: Process,
    /// Where clients find the service.
    address: &'a RwLock<String>,
    random: ChaCha8Rng,
}

fn settings(url: &str) -> Settings {
    // Datasets go a moment after their jobs, so that an hour of them fits in memory.
    Settings::new(url).set("ROCKET_WORKERS", 2).set("ROCKET_DATASET_RETENTION_SECONDS", 5)
}

impl Arena<'_> {
    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::KillWorker => _ = kill(self.any_worker(), Signal::SIGKILL),
            Fault::FreezeWorker => {
                // It may be one that has just ended.
                let worker = self.any_worker();
                _ = kill(worker, Signal::SIGSTOP);
                self.last(3_000);
                _ = kill(worker, Signal::SIGCONT);
            }
            Fault::KillApi => self.service.process.kill(),
            Fault::StopApi => _ = self.service.process.stop(),
            Fault::KillDatabase => self.server.end_by(Signal::SIGKILL),
            Fault::QuitDatabase => self.server.end_by(Signal::SIGQUIT),
            Fault::StopDatabase => {
                self.server.stop();
                self.last(2_000);
            }
            Fault::CutConnections => execute(
                self.server.url(),
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            ),
        }
    }

    /// How long a fault lasts, or how long it is quiet until the next.
    fn last(&mut self, most_milliseconds: u64) {
        thread::sleep(Duration::from_millis(self.random.random_range(0..most_milliseconds)));
    }

    fn any_worker(&mut self) -> Pid {
        let mut workers = self.service.process.children();
        workers.push(Pid::from_raw(self.worker.id() as i32));
        workers[self.random.random_range(0..workers.len())]
    }

    /// Starts again what has ended, as whoever runs the service would have it done.
    fn mend(&mut self) {
        if !self.server.is_running() {
            self.server.restart();
        }
        if self.service.process.has_ended() {
            self.service = settings(self.server.url()).serve();
            *self.address.write().unwrap() = self.service.url("");
        }
        if self.worker.has_ended() {
            self.worker = settings(self.server.url()).worker();
        }
    }

    /// Faults until it is over; returns how long each kind took until a new training was answered again, in seconds.
    fn torment(&mut self, load: &Load<'_>, duration: Duration) -> BTreeMap<Fault, Vec<f64>> {
        let mut recoveries = BTreeMap::<Fault, Vec<f64>>::new();
        let start = Instant::now();
        while start.elapsed() < duration {
            self.last(1_000);
            let (fault, _) = Fault::ALL[self.random.random_range(0..Fault::ALL.len())];
            let on_top = Fault::ON_TOP.get(self.random.random_range(0..6)).filter(|&&other| other != fault);
            let began = Instant::now();
            self.strike(fault);
            if let Some(&other) = on_top
                && !self.service.process.has_ended()
            {
                self.strike(other);
            }
            self.mend();
            load.probe();
            recoveries.entry(fault).or_default().push(began.elapsed().as_secs_f64());
        }
        recoveries
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no whole number")))
}

#[test]
fn nothing_is_lost_or_done_twice_whatever_is_killed() {
    let seconds = variable("RIDGELINE_CHAOS_SECONDS").unwrap_or(60);
    let seed = variable("RIDGELINE_CHAOS_SEED").unwrap_or_else(rand::random::<u64>);
    let server = Server::start();
    let service = settings(server.url()).serve();
    let worker = settings(server.url()).worker();
    record_changes(server.url());
    let address = RwLock::new(service.url(""));
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut arena = Arena { server, service, worker, address: &address, random };
    let load = Load::new(&address);
    let mut figures = format!("chaos: {seconds} s, RIDGELINE_CHAOS_SEED={seed}\n");
    say(&figures);

    let recoveries = thread::scope(|scope| {
        load.start(scope);
        // However it ends, the clients are to stop.
        let _stop = load.stop_on_drop();
        arena.torment(&load, Duration::from_secs(seconds))
    });
    let url = arena.server.url().to_owned();
    wait_until("all jobs have ended", || {
        value(&url, "SELECT count(*) FROM models WHERE status IN ('queued', 'training')") == "0"
    });

    for (fault, name) in Fault::ALL {
        let Some(times) = recoveries.get(&fault) else { continue };
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        let n = times.len();
        writeln!(
            figures,
            "  {name:33} {n:4} times, a new training answered after {median:.1} s (median), {most:.1} s (most)"
        )
        .unwrap();
    }
    let accounts = load.accounts(&url);
    say(&format!("{figures}  {accounts}\n"));
    accounts.check();
}

/// Writes to standard error itself: what goes through the macros is kept from who runs the tests.
fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
