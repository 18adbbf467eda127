//! Where results go: standard output, or a file that is there when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A writer that remembers that its reader has gone, as `head` does when it has enough.
pub(super) struct Output<W> {
    writer: W,
    is_closed: bool,
}

impl<W: Write> Output<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, is_closed: false }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn seen<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.is_closed |= matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.writer.write(bytes);
        self.seen(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.writer.flush();
        self.seen(result)
    }
}

/// Copies everything, and tells a reply that breaks off from an output that cannot be written.
///
/// # Errors
/// When either happens.
pub(super) fn copy(from: &mut impl io::Read, to: &mut impl Write) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n_bytes = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.context("the reply broke off")?,
        };
        if n_bytes == 0 {
            return to.flush().context("the output cannot be written");
        }
        to.write_all(&buffer[..n_bytes]).context("the output cannot be written")?;
    }
}

/// Writes a file by `write`. It gets its name when it is complete: nobody takes a part for the whole.
///
/// # Errors
/// Those of `write`, and when the file cannot be written.
pub(super) fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let part = Part({
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        name.into()
    });
    let unwritable = || format!("{} cannot be written", path.display());
    let mut file = BufWriter::new(File::create(&part.0).with_context(unwritable)?);
    write(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error).with_context(unwritable)?;
    fs::rename(&part.0, path).with_context(unwritable)
}

/// A file that is not complete yet, and goes if it never is.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It has its proper name by now, or is of no use.
        let _gone = fs::remove_file(&self.0);
    }
}
