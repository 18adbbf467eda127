//! Where results go: standard output, or a file that is there when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::text::clean;

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

/// Copies everything, and tells a reply that breaks off from an output that cannot be written. Predictions that break off end
/// with a line that says why: that is the error, and not copied.
///
/// # Errors
/// When either happens.
pub(super) fn copy(from: &mut impl io::Read, to: &mut impl Write) -> anyhow::Result<()> {
    const UNWRITABLE: &str = "the output cannot be written";
    let mut buffer = vec![0; 1 << 16];
    // The last line so far, unless it is too long to be one of those.
    let mut last = Vec::new();
    loop {
        let n_bytes = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(n_bytes) => n_bytes,
            Err(error) => {
                let text = String::from_utf8_lossy(&last);
                if let Some(sentence) = text.strip_prefix(BROKEN) {
                    bail!("{}", clean(sentence.trim()));
                }
                to.write_all(&last).context(UNWRITABLE)?;
                return Err(error).context("the reply broke off");
            }
        };
        last.extend_from_slice(&buffer[..n_bytes]);
        if n_bytes == 0 {
            to.write_all(&last).context(UNWRITABLE)?;
            return to.flush().context(UNWRITABLE);
        }
        // The end of the last line belongs to it.
        let before = &last[..last.len() - 1];
        let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let start = if last.len() - start > LONGEST_LINE { last.len() } else { start };
        to.write_all(&last[..start]).context(UNWRITABLE)?;
        last.drain(..start);
    }
}

/// How the line begins that says why predictions have broken off, and how long it may be.
const BROKEN: &str = "error: ";
const LONGEST_LINE: usize = 1 << 16;

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
