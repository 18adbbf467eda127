//! A CSV to be sent: a file, a pipe, standard input.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use indicatif::ProgressBar;

/// A CSV that is read while it is sent.
pub(super) struct Source {
    name: String,
    file: File,
    /// Where it begins and how many bytes it has; `None` for a pipe, which can be read once.
    extent: Option<(u64, u64)>,
    /// Whether what is read is gzip.
    pub(super) is_gzip: bool,
}

impl Source {
    /// The file at `path`, or standard input for `-`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let is_stdin = path == Path::new("-");
        let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let open = || {
            let mut file =
                if is_stdin { File::from(io::stdin().as_fd().try_clone_to_owned()?) } else { File::open(path)? };
            let metadata = file.metadata()?;
            let extent = match metadata.is_file() {
                true => {
                    let start = file.stream_position()?;
                    Some((start, metadata.len().saturating_sub(start)))
                }
                false => None,
            };
            Ok::<_, io::Error>((file, extent))
        };
        let (file, extent) = open().with_context(|| format!("{name} cannot be opened"))?;
        Ok(Self { is_gzip: path.extension().is_some_and(|extension| extension == "gz"), name, file, extent })
    }

    /// Its size in bytes, where it has one.
    pub(super) fn length(&self) -> Option<u64> {
        self.extent.map(|(_, length)| length)
    }

    /// Goes back to its beginning, so that it can be sent again; `false` where that cannot be.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub(super) fn rewind(&mut self) -> anyhow::Result<bool> {
        let Some((start, _)) = self.extent else {
            return Ok(false);
        };
        self.file.seek(SeekFrom::Start(start)).with_context(|| format!("{} cannot be read", self.name))?;
        Ok(true)
    }

    /// Its bytes from where it stands; `bar` follows.
    pub(super) fn reader<'a>(&'a mut self, bar: &'a ProgressBar) -> Reader<'a> {
        Reader { source: self, bar, is_over: false, error: None }
    }
}

/// A [`Source`] on its way.
pub(super) struct Reader<'a> {
    source: &'a mut Source,
    bar: &'a ProgressBar,
    is_over: bool,
    error: Option<io::Error>,
}

impl Reader<'_> {
    /// Whether everything has been read.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.source.length().is_some_and(|length| self.bar.position() >= length)
    }

    /// What kept it from being read: the request only says that something did.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.error.take().map_or(Ok(()), Err).with_context(|| format!("{} cannot be read", self.source.name))
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.file.read(buffer) {
            Ok(n_bytes) => {
                self.is_over = n_bytes == 0;
                self.bar.inc(n_bytes as u64);
                Ok(n_bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }
}
