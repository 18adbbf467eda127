//! Connections: how many are open, and the end of those on which nothing happens.
//!
//! Rocket 0.5 sets no time limit on a connection that is idle, or whose request never becomes complete. A thread therefore
//! looks at the process's sockets once a second. It stops reading from those on which no request has been under way for
//! `idle_timeout_seconds`: the HTTP library takes that for the end of what the client sends, sends what it still has to,
//! and closes the connection. Beyond `connection_limit` the quietest ones end earlier. So neither the descriptors nor the
//! memory of the process run out because of clients that hold connections and ask for nothing.

mod sockets;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rocket::fairing::{Fairing, Info, Kind};
use rocket::request::{FromRequest, Outcome};
use rocket::{Build, Data, Orbit, Request, Rocket};

use crate::config::Config;
pub(crate) use sockets::raise_descriptor_limit;
use sockets::{Socket, Sockets};

/// How often the connections are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often while there are too many of them.
const FAST_TICK: Duration = Duration::from_millis(100);
/// How often while the service stops.
const SHUTDOWN_TICK: Duration = Duration::from_millis(10);
/// How long a connection that is given up may take to send what it still has to.
const FAREWELL: Duration = Duration::from_secs(30);

/// Which connections have requests under way, by the client's address. A fairing that keeps this up to date, and ends the
/// connections that have none for too long.
pub(super) struct Connections {
    idle: Duration,
    most: usize,
    peers: Arc<Peers>,
}

impl Connections {
    /// With the limits of `config`.
    pub(super) fn new(config: &Config) -> Self {
        Self { idle: config.idle_timeout, most: config.connection_limit as usize, peers: Arc::default() }
    }
}

/// Whether nobody waits any longer for the rest of the request: its connection has been given up.
pub(super) fn has_been_given_up(request: &Request<'_>) -> bool {
    let peers = request.rocket().state::<Arc<Peers>>();
    let (Some(peers), Some(peer)) = (peers, request.remote()) else { return false };
    peers.lock().get(&peer).is_some_and(|peer| peer.given_up)
}

/// The connection of a request, for a reply that turns out to be wrong half-way: only a connection that breaks off tells the
/// client so. As a request guard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifeline {
    peer: Option<SocketAddr>,
    port: u16,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Lifeline {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self { peer: request.remote(), port: request.rocket().config().port })
    }
}

impl Lifeline {
    /// Breaks the connection off.
    pub(super) fn cut(self) {
        let cut = |socket: Socket| if Some(socket.peer) == self.peer { socket.shut(Shutdown::Both) } else { Ok(()) };
        let found = Sockets::new(self.port).connections();
        if let Err(error) = found.and_then(|sockets| sockets.into_iter().try_for_each(cut)) {
            log::error!("a connection cannot be broken off: {error}");
        }
    }
}

#[rocket::async_trait]
impl Fairing for Connections {
    fn info(&self) -> Info {
        Info { name: "connections", kind: Kind::Ignite | Kind::Liftoff | Kind::Request | Kind::Shutdown }
    }

    async fn on_ignite(&self, rocket: Rocket<Build>) -> rocket::fairing::Result {
        Ok(rocket.manage(Arc::clone(&self.peers)))
    }

    async fn on_liftoff(&self, rocket: &Rocket<Orbit>) {
        let sockets = Sockets::new(rocket.config().port);
        let mut sweeper =
            Sweeper { idle: self.idle, most: self.most, sockets, open: HashMap::new(), peers: Arc::clone(&self.peers) };
        let work = move || {
            // The other owner is Rocket.
            while Arc::strong_count(&sweeper.peers) > 1 {
                let pause = sweeper.look();
                thread::sleep(pause);
            }
        };
        if let Err(error) = thread::Builder::new().name("connections".to_owned()).spawn(work) {
            log::error!("idle connections are not closed, because there is no thread for it: {error}");
        }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        if let Some(peer) = request.remote() {
            request.local_cache(|| UnderWay::begin(&self.peers, peer));
        }
    }

    /// Rocket lets all of the grace period pass if one connection, be it an idle one, is open when the fairings are done, and
    /// listens until then.
    async fn on_shutdown(&self, rocket: &Rocket<Orbit>) {
        let grace = Duration::from_secs(rocket.config().shutdown.grace.into());
        let mut sockets = Sockets::new(rocket.config().port);
        if let Err(error) = sockets.stop_listening() {
            log::warn!("connections are taken until the last request has ended: {error}");
        }
        let closed = async {
            while sockets.connections().is_ok_and(|open| !open.is_empty()) {
                tokio::time::sleep(SHUTDOWN_TICK).await;
            }
        };
        let _in_time = tokio::time::timeout(grace, closed).await;
    }
}

/// What is known of each client's connection.
#[derive(Default)]
struct Peers(Mutex<HashMap<SocketAddr, Peer>>);

struct Peer {
    requests: usize,
    /// When the last request ended.
    quiet_since: Instant,
    given_up: bool,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way; kept with the request, which lives until its reply has been handed over.
struct UnderWay {
    peers: Arc<Peers>,
    peer: SocketAddr,
}

impl UnderWay {
    fn begin(peers: &Arc<Peers>, peer: SocketAddr) -> Self {
        let new = || Peer { requests: 0, quiet_since: Instant::now(), given_up: false };
        peers.lock().entry(peer).or_insert_with(new).requests += 1;
        Self { peers: Arc::clone(peers), peer }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(peer) = self.peers.lock().get_mut(&self.peer) {
            peer.requests = peer.requests.saturating_sub(1);
            peer.quiet_since = Instant::now();
        }
    }
}

/// Ends connections.
struct Sweeper {
    idle: Duration,
    most: usize,
    sockets: Sockets,
    /// The connections that were open when last looked at, by the socket's number.
    open: HashMap<u64, Connection>,
    peers: Arc<Peers>,
}

struct Connection {
    socket: Socket,
    opened: Instant,
    given_up: Option<Instant>,
}

impl Sweeper {
    /// Looks at all connections once; returns how long to wait before the next look.
    fn look(&mut self) -> Duration {
        self.sockets.make_room();
        let pause = self.sweep().unwrap_or_else(|error| {
            log::warn!("the open connections cannot be looked at: {error}");
            FAST_TICK
        });
        self.sockets.reserve_room();
        pause
    }

    fn sweep(&mut self) -> io::Result<Duration> {
        let found = self.sockets.connections()?;
        self.update(found);
        let now = Instant::now();
        let mut quiet: Vec<(Duration, u64)> = Vec::new();
        let mut n_open = self.open.len();
        for (&number, connection) in &self.open {
            if let Some(since) = connection.given_up {
                n_open -= 1;
                if now - since > FAREWELL {
                    connection.socket.shut(Shutdown::Both)?;
                }
                continue;
            }
            match self.peers.lock().get(&connection.socket.peer) {
                Some(peer) if peer.requests > 0 => {}
                Some(peer) => quiet.push((now - peer.quiet_since.max(connection.opened), number)),
                None => quiet.push((now - connection.opened, number)),
            }
        }
        quiet.sort_unstable_by_key(|&(quiet, _)| Reverse(quiet));
        let excess = n_open.saturating_sub(self.most);
        let n_idle = quiet.partition_point(|&(quiet, _)| quiet > self.idle);
        for &(_, number) in quiet.iter().take(n_idle.max(excess)) {
            self.give_up(number)?;
        }
        if excess == 0 {
            return Ok(TICK);
        }
        log::warn!("{n_open} connections are open, {excess} more than connection_limit: those without a request end");
        Ok(FAST_TICK)
    }

    /// Takes over what is open now.
    fn update(&mut self, found: Vec<Socket>) {
        let mut known = std::mem::take(&mut self.open);
        for socket in found {
            let connection = known.remove(&socket.number);
            let new = || Connection { socket, opened: Instant::now(), given_up: None };
            self.open.insert(socket.number, connection.unwrap_or_else(new));
        }
        let open: HashSet<SocketAddr> = self.open.values().map(|connection| connection.socket.peer).collect();
        self.peers.lock().retain(|address, peer| peer.requests > 0 || open.contains(address));
    }

    fn give_up(&mut self, number: u64) -> io::Result<()> {
        let Some(connection) = self.open.get_mut(&number) else { return Ok(()) };
        let new = || Peer { requests: 0, quiet_since: Instant::now(), given_up: true };
        let mut peers = self.peers.lock();
        let peer = peers.entry(connection.socket.peer).or_insert_with(new);
        // A request may have begun just now.
        if peer.requests == 0 {
            connection.socket.shut(Shutdown::Read)?;
            peer.given_up = true;
            connection.given_up = Some(Instant::now());
        }
        Ok(())
    }
}
