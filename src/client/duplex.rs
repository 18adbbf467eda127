//! A connection that takes in what the service sends while the request is still on its way.
//!
//! The service streams predictions back while it reads rows, and waits when nobody takes them; and it answers what it refuses
//! before it has all of it. The HTTP client reads only when it has sent everything. So a thread reads in its place, and keeps
//! what comes until it is wanted: in memory at first, then in a temporary file.

use std::fmt;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use tempfile::SpooledTempFile;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

/// Bytes that are kept in memory.
const IN_MEMORY: usize = 1 << 20;

/// Makes such connections where no proxy has made one.
#[derive(Debug)]
pub(super) struct DuplexConnector;

impl<In: Transport> Connector<In> for DuplexConnector {
    type Out = Either<In, Duplex>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(chained) = chained {
            return Ok(Some(Either::A(chained)));
        }
        let stream = connect(details)?;
        stream.set_nodelay(true)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Duplex::new(stream, buffers)?)))
    }
}

/// A connection to the first of the service's addresses that takes one.
fn connect(details: &ConnectionDetails<'_>) -> Result<TcpStream, Error> {
    let mut last = Error::ConnectionFailed;
    for address in &details.addrs {
        let connected = match details.timeout.not_zero() {
            Some(timeout) => TcpStream::connect_timeout(address, *timeout),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => last = Error::Timeout(Timeout::Connect),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// A connection with its reader.
pub(super) struct Duplex {
    stream: TcpStream,
    inbox: Arc<Inbox>,
    buffers: LazyBuffers,
    /// The service takes nothing any more, but has answered.
    is_deaf: bool,
}

/// What has come and is not wanted yet.
struct Inbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
}

struct Mail {
    spool: SpooledTempFile,
    written: u64,
    read: u64,
    /// How the connection has ended, if it has.
    end: Option<io::Result<()>>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in everything that comes over `stream`.
    fn fill(&self, mut stream: TcpStream) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let end = match stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) => Some(Ok(())),
                Ok(n_bytes) => self.lock().put(&buffer[..n_bytes]).err().map(Err),
                Err(error) => Some(Err(error)),
            };
            let is_over = end.is_some();
            if is_over {
                self.lock().end = end;
            }
            self.arrived.notify_all();
            if is_over {
                return;
            }
        }
    }
}

impl Mail {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.spool.seek(SeekFrom::Start(self.written))?;
        self.spool.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.spool.seek(SeekFrom::Start(self.read))?;
        let n_bytes = self.spool.read(buffer)?;
        self.read += n_bytes as u64;
        if self.read == self.written {
            // Nothing is left: the room is used again.
            self.spool.set_len(0)?;
            (self.read, self.written) = (0, 0);
        }
        Ok(n_bytes)
    }

    fn is_empty(&self) -> bool {
        self.read == self.written
    }
}

impl Duplex {
    fn new(stream: TcpStream, buffers: LazyBuffers) -> io::Result<Self> {
        let mail = Mail { spool: SpooledTempFile::new(IN_MEMORY), written: 0, read: 0, end: None };
        let inbox = Arc::new(Inbox { mail: Mutex::new(mail), arrived: Condvar::new() });
        let (reader, source) = (Arc::clone(&inbox), stream.try_clone()?);
        // It ends with the connection.
        thread::Builder::new().spawn(move || reader.fill(source))?;
        Ok(Self { stream, inbox, buffers, is_deaf: false })
    }
}

impl Transport for Duplex {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.is_deaf {
            return Ok(());
        }
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(timeout.not_zero().map(|timeout| *timeout))?;
        match self.stream.write_all(&self.buffers.output()[..amount]) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                Err(Error::Timeout(timeout.reason))
            }
            // It has had enough, and has said why: that is to be read now.
            Err(_) if !self.inbox.lock().is_empty() => {
                self.is_deaf = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let deadline = timeout.not_zero().map(|timeout| Instant::now() + *timeout);
        let mut mail = self.inbox.lock();
        while mail.is_empty() {
            if let Some(end) = mail.end.replace(Ok(())) {
                end?;
                return Ok(false);
            }
            mail.end = None;
            let arrived = &self.inbox.arrived;
            mail = match deadline {
                None => arrived.wait(mail).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(Error::Timeout(timeout.reason));
                    }
                    arrived.wait_timeout(mail, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let n_bytes = mail.take(self.buffers.input_append_buf())?;
        self.buffers.input_appended(n_bytes);
        Ok(n_bytes > 0)
    }

    fn is_open(&mut self) -> bool {
        let mail = self.inbox.lock();
        mail.end.is_none() && mail.is_empty() && !self.is_deaf
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        // So that the reader ends. The other side may have been faster.
        let _closed = self.stream.shutdown(Shutdown::Both);
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").field("stream", &self.stream).finish_non_exhaustive()
    }
}
