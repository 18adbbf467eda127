//! A CSV text that arrives in chunks, cut into pieces of whole records, so that no more than a piece must be held, and several
//! can be read at once.

use memchr::{memchr, memchr2, memrchr, memrchr2};

use super::CsvError;

/// Bytes of a piece, about.
const PIECE_BYTES: usize = 1 << 20;
/// Most bytes of one record.
pub(super) const LONGEST_RECORD: usize = 64 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whole records of a CSV, in the order of the text, with their place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub(super) bytes: Vec<u8>,
    /// The line of the text that it begins on, from 1.
    pub(super) line: usize,
    /// The bytes of the text before it.
    pub(super) offset: usize,
}

/// Cuts a text into pieces. Where it is cut depends on the text alone, not on the chunks that it arrives in.
#[derive(Debug)]
pub struct Pieces {
    /// What has arrived and is in no piece yet; it begins with a record.
    bytes: Vec<u8>,
    /// So many of them have been looked at, and this is where that has led.
    scanned: usize,
    place: Place,
    /// The end of the last record that was found.
    cut: Option<usize>,
    line: usize,
    offset: usize,
    is_first: bool,
}

/// Where in a record a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a cell, or among the blanks in front of it.
    Start,
    /// In a cell without quotes, or behind a quoted one.
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell, which ends it unless another one follows.
    Quote,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { bytes: Vec::new(), scanned: 0, place: Place::Start, cut: None, line: 1, offset: 0, is_first: true }
    }
}

impl Pieces {
    /// Takes the next bytes of the text.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(chunk.len().min(PIECE_BYTES));
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// The next piece, if so much has arrived.
    ///
    /// # Errors
    /// [`CsvError::RecordTooLong`].
    pub fn next_piece(&mut self) -> Result<Option<Piece>, CsvError> {
        if self.is_first && self.bytes.len() < BYTE_ORDER_MARK.len() {
            return Ok(None);
        }
        self.drop_byte_order_mark();
        let n_bytes = self.bytes.len();
        // The last record that ends within a piece's size; or else the first one behind it.
        self.scan(n_bytes.min(PIECE_BYTES), false);
        if n_bytes < PIECE_BYTES {
            return Ok(None);
        }
        if self.cut.is_none() {
            self.scan(n_bytes, true);
        }
        match self.cut {
            Some(cut) => Ok(Some(self.take(cut))),
            None if n_bytes > LONGEST_RECORD => Err(CsvError::RecordTooLong { line: self.line }),
            None => Ok(None),
        }
    }

    /// The last piece, once everything has arrived and [`Self::next_piece`] finds no more; `None` when there is nothing left.
    #[must_use]
    pub fn last(mut self) -> Option<Piece> {
        self.drop_byte_order_mark();
        (!self.bytes.is_empty()).then(|| self.take(self.bytes.len()))
    }

    fn drop_byte_order_mark(&mut self) {
        if std::mem::take(&mut self.is_first) && self.bytes.starts_with(BYTE_ORDER_MARK) {
            self.bytes.drain(..BYTE_ORDER_MARK.len());
            self.offset = BYTE_ORDER_MARK.len();
        }
    }

    fn take(&mut self, cut: usize) -> Piece {
        let mut rest = Vec::with_capacity(if self.bytes.len() > cut { PIECE_BYTES + PIECE_BYTES / 8 } else { 0 });
        rest.extend_from_slice(&self.bytes[cut..]);
        let mut bytes = std::mem::replace(&mut self.bytes, rest);
        bytes.truncate(cut);
        let piece = Piece { bytes, line: self.line, offset: self.offset };
        self.line += memchr::memchr_iter(b'\n', &piece.bytes).count();
        self.offset += cut;
        (self.scanned, self.place, self.cut) = (0, Place::Start, None);
        piece
    }

    /// Looks for ends of records up to `end`, for the first one only if that is enough.
    fn scan(&mut self, end: usize, only_first: bool) {
        if self.scanned >= end {
            return;
        }
        let bytes = &self.bytes[self.scanned..end];
        let is_plain = self.place != Place::Quoted && self.place != Place::Quote && memchr(b'"', bytes).is_none();
        if is_plain {
            let found = if only_first { memchr(b'\n', bytes) } else { memrchr(b'\n', bytes) };
            if let Some(at) = found {
                self.cut = Some(self.scanned + at + 1);
            }
            let tail = memrchr2(b',', b'\n', bytes).map_or(0, |at| at + 1);
            let is_in_cell = !bytes[tail..].iter().all(|&byte| is_blank(byte));
            if tail > 0 || self.place == Place::Start {
                self.place = if is_in_cell { Place::Plain } else { Place::Start };
            }
            self.scanned = end;
            return;
        }
        let mut at = self.scanned;
        while at < end {
            let byte = self.bytes[at];
            match self.place {
                Place::Start if byte == b'"' => self.place = Place::Quoted,
                Place::Start if is_blank(byte) || byte == b',' => {}
                Place::Start if byte == b'\n' => self.cut = Some(at + 1),
                Place::Start => self.place = Place::Plain,
                Place::Plain => match memchr2(b',', b'\n', &self.bytes[at..end]) {
                    Some(length) => {
                        at += length;
                        if self.bytes[at] == b'\n' {
                            self.cut = Some(at + 1);
                        }
                        self.place = Place::Start;
                    }
                    None => at = end,
                },
                Place::Quoted => match memchr(b'"', &self.bytes[at..end]) {
                    Some(length) => {
                        at += length;
                        self.place = Place::Quote;
                    }
                    None => at = end,
                },
                Place::Quote if byte == b'"' => self.place = Place::Quoted,
                Place::Quote => {
                    self.place = Place::Plain;
                    // The byte itself may end the cell.
                    continue;
                }
            }
            at += 1;
            if only_first && self.cut.is_some() {
                break;
            }
        }
        self.scanned = end;
    }
}

/// Whether a byte is ignored around a cell.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a text that arrives in chunks of `n` bytes.
    fn pieces(text: &[u8], n: usize) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        let mut found = Vec::new();
        for chunk in text.chunks(n) {
            pieces.push(chunk);
            while let Some(piece) = pieces.next_piece().unwrap() {
                found.push(piece);
            }
        }
        found.extend(pieces.last());
        found
    }

    #[test]
    fn pieces_are_whole_records_wherever_the_chunks_end() {
        let plain = "1.5,2,3 \r\n".repeat(250_000);
        let quoted = "\"a\"\"\n,\", 5\" x\n,\",\"\r\n \"\n\" ,\n".repeat(100_000);
        for (text, ending) in [(plain, "3 \r\n"), (quoted, "\n\" ,\n")] {
            let text = format!("\u{feff}{text}");
            let expected = pieces(text.as_bytes(), 64 << 10);
            assert!(expected.len() > 2);
            assert_eq!(pieces(text.as_bytes(), 1 << 30), expected);
            assert_eq!(pieces(text.as_bytes(), 7), expected);
            let (mut line, mut offset) = (1, 3);
            for piece in &expected {
                assert_eq!((piece.line, piece.offset), (line, offset));
                assert!(piece.bytes.len() <= PIECE_BYTES && piece.bytes.ends_with(ending.as_bytes()));
                line += piece.bytes.iter().filter(|byte| **byte == b'\n').count();
                offset += piece.bytes.len();
            }
            assert_eq!(offset, text.len());
        }
    }

    #[test]
    fn a_long_record_is_one_piece_and_a_longer_one_is_refused() {
        let long = format!("a,\"{}\"\nb\n", "\n".repeat(3 * PIECE_BYTES));
        let found = pieces(long.as_bytes(), 64 << 10);
        assert_eq!(found.iter().map(|piece| piece.bytes.len()).collect::<Vec<_>>(), [long.len() - 2, 2]);
        assert_eq!(found[1].line, 2 + 3 * PIECE_BYTES);

        let mut pieces = Pieces::default();
        pieces.push(b"a\n\"");
        let chunk = [b'x'; 1 << 20];
        let error = (0..100).find_map(|_| {
            pieces.push(&chunk);
            loop {
                match pieces.next_piece() {
                    Ok(Some(_header)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                }
            }
        });
        assert_eq!(error, Some(CsvError::RecordTooLong { line: 2 }));
    }
}
