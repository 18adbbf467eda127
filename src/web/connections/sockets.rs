//! The sockets of this process, as Linux lists them.

use std::collections::HashMap;
use std::fs::{File, read_dir, read_link};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, getsockopt, listen, setsockopt, sockopt};

/// More open files than any service needs; where the system sets no limit, some memory goes with each possible one.
const MOST_DESCRIPTORS: u64 = 1 << 20;
/// Descriptors that are needed to look at the others.
const SPARE: usize = 4;
/// How long what is sent may go unacknowledged before the kernel gives the connection up, in milliseconds.
const SEND_TIMEOUT: u32 = 60_000;

/// Raises the number of files and connections that this process may have open as far as it may, and returns it.
///
/// # Errors
/// When the system refuses to tell or to set it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(MOST_DESCRIPTORS).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}

/// A connection's socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Socket {
    descriptor: RawFd,
    /// The kernel's number of it, which is never used again.
    pub(super) number: u64,
    /// The client's address.
    pub(super) peer: SocketAddr,
}

impl Socket {
    /// Shuts the connection, if it is still the one that the descriptor stands for.
    ///
    /// # Errors
    /// When there is no descriptor to do it with.
    pub(super) fn shut(&self, how: Shutdown) -> io::Result<()> {
        let stream = duplicate(self.descriptor)?;
        if stream.peer_addr().is_ok_and(|peer| peer == self.peer) {
            // What is closed already needs no more.
            let _closed = stream.shutdown(how);
        }
        Ok(())
    }
}

/// The connections that clients have made to a port of this process.
pub(super) struct Sockets {
    port: u16,
    /// What each socket has turned out to be; `None`: something else.
    known: HashMap<u64, Option<SocketAddr>>,
    /// Kept open in order to be closed when they are needed: connections may have taken all other descriptors.
    spare: Vec<File>,
}

impl Sockets {
    pub(super) fn new(port: u16) -> Self {
        Self { port, known: HashMap::new(), spare: Vec::new() }
    }

    /// Closes the spare descriptors, so that there are some for what follows.
    pub(super) fn make_room(&mut self) {
        self.spare.clear();
    }

    /// Takes them again.
    pub(super) fn reserve_room(&mut self) {
        self.spare.extend((0..SPARE).map_while(|_| File::open("/dev/null").ok()));
    }

    /// Those that are open.
    ///
    /// # Errors
    /// When the list of descriptors cannot be read.
    pub(super) fn connections(&mut self) -> io::Result<Vec<Socket>> {
        let mut before = std::mem::take(&mut self.known);
        let mut found = Vec::new();
        for (descriptor, number) in all()? {
            let peer = before.remove(&number).unwrap_or_else(|| self.identify(descriptor));
            self.known.insert(number, peer);
            if let Some(peer) = peer {
                found.push(Socket { descriptor, number, peer });
            }
        }
        Ok(found)
    }

    /// Has the system refuse further connections, though whoever listens does not know that yet.
    ///
    /// # Errors
    /// When the list of descriptors cannot be read.
    pub(super) fn stop_listening(&self) -> io::Result<()> {
        for (descriptor, _) in all()? {
            if let Some(listener) = self.own(descriptor).filter(is_listener) {
                listener.shutdown(Shutdown::Both)?;
            }
        }
        Ok(())
    }

    /// The client at the other end of a socket, if it is a connection to our port.
    fn identify(&self, descriptor: RawFd) -> Option<SocketAddr> {
        let stream = self.own(descriptor)?;
        if is_listener(&stream)
            && let Err(error) = prepare(&stream)
        {
            log::warn!("the queue and the time limits of connections cannot be set: {error}");
        }
        stream.peer_addr().ok()
    }

    /// A second descriptor of a socket, if it is one of our port.
    fn own(&self, descriptor: RawFd) -> Option<TcpStream> {
        duplicate(descriptor).ok().filter(|stream| stream.local_addr().is_ok_and(|local| local.port() == self.port))
    }
}

fn is_listener(socket: &TcpStream) -> bool {
    getsockopt(socket, sockopt::AcceptConn).unwrap_or(false)
}

/// Gives the listening socket a longer queue than Rocket does, which a short burst of clients overflows, and limits that every
/// connection inherits: a client that vanishes, or that does not read its reply, does not hold its connection for ever.
fn prepare(listener: &TcpStream) -> nix::Result<()> {
    listen(listener, Backlog::MAXCONN)?;
    setsockopt(listener, sockopt::TcpUserTimeout, &SEND_TIMEOUT)?;
    setsockopt(listener, sockopt::KeepAlive, &true)
}

/// The descriptor and the number of every socket of this process.
fn all() -> io::Result<Vec<(RawFd, u64)>> {
    let paths: Vec<PathBuf> = read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    Ok(paths.iter().filter_map(|path| Some((descriptor(path)?, socket_number(path)?))).collect())
}

fn descriptor(path: &Path) -> Option<RawFd> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The kernel's number of the socket, from a link such as `socket:[1234]`.
fn socket_number(path: &Path) -> Option<u64> {
    read_link(path).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A second descriptor of what is open under the number `descriptor`, whatever that is at this moment: whoever asks must look
/// what it has got.
fn duplicate(descriptor: RawFd) -> io::Result<TcpStream> {
    #[expect(unsafe_code, reason = "there is no safe way to name a descriptor that someone else owns")]
    // SAFETY: It is borrowed for one system call, which fails where nothing is open under the number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed.try_clone_to_owned().map(TcpStream::from)
}
