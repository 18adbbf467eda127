//! The numbers of a CSV, piece by piece.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memchr3;

use super::CsvError;
use super::cells::Records;
use super::csv::number;
use super::digits::short_number;
use super::pieces::{Piece, is_blank};

/// Most columns of a CSV.
pub(super) const MOST_COLUMNS: usize = 100_000;
/// Most bytes of all column names: what a jsonb value holds, with room to spare.
pub(super) const LONGEST_HEADER: usize = 16 << 20;

/// Why a piece is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not a CSV of numbers.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// It is not even text.
    #[error("not valid UTF-8: byte {byte} (line {line})")]
    NotUtf8 {
        /// The first byte that is wrong, from 1 at the beginning of the text.
        byte: usize,
        /// Its line.
        line: usize,
    },
}

/// The first record of a CSV: the names of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
    line: usize,
}

impl Header {
    /// Reads the header and takes it away from the text's first piece; `None` when that holds nothing but blank lines.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(piece: &mut Piece) -> Result<Option<Self>, ReadError> {
        let text = piece.text()?;
        let mut records = Records::new(text, piece.line);
        let mut names = Vec::new();
        let Some(line) = records.next(MOST_COLUMNS, &mut names)? else { return Ok(None) };
        if names.len() > MOST_COLUMNS {
            return Err(CsvError::TooManyColumns.into());
        }
        if names.iter().map(|name| name.len()).sum::<usize>() > LONGEST_HEADER {
            return Err(CsvError::HeaderTooLong.into());
        }
        let names = names.into_iter().map(Cow::into_owned).collect();
        let (end, next) = (records.position(), records.line());
        piece.bytes.drain(..end);
        piece.offset += end;
        piece.line = next;
        Ok(Some(Self { names, line }))
    }

    /// The names in order; they may be empty, and the same more than once.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Reads the cells below a header.
#[derive(Debug, Clone)]
pub struct Reader {
    names: Vec<String>,
    /// Where each column's number stands in a row of the result; `None` for a column that may hold anything.
    places: Vec<Option<usize>>,
    n_wanted: usize,
    /// Whether all columns are wanted, in their order.
    is_plain: bool,
    /// A column that must not hold negative numbers.
    not_negative: Option<usize>,
}

impl Reader {
    /// A reader of all columns, which must have names that tell them apart.
    ///
    /// # Errors
    /// What is wrong with the names.
    pub fn of_all(header: &Header) -> Result<Self, CsvError> {
        let (names, line) = (header.names.clone(), header.line);
        let mut seen = HashMap::new();
        for (column, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(CsvError::UnnamedColumn { line, column });
            }
            if name.contains('\0') {
                return Err(CsvError::NulInName { line, column });
            }
            if let Some(first) = seen.insert(name.as_str(), column) {
                return Err(CsvError::DuplicateColumn { line, name: name.clone(), first, second: column });
            }
        }
        let n_wanted = names.len();
        let places = (0..n_wanted).map(Some).collect();
        Ok(Self { names, places, n_wanted, is_plain: true, not_negative: None })
    }

    /// A reader of the columns `wanted`, in that order.
    ///
    /// # Errors
    /// Which of them are missing, or there twice.
    pub fn of(header: &Header, wanted: &[String]) -> Result<Self, CsvError> {
        let line = header.line;
        let mut positions: HashMap<&str, usize> = HashMap::new();
        let mut duplicates: HashMap<&str, (usize, usize)> = HashMap::new();
        for (column, name) in header.names.iter().enumerate() {
            if let Some(&first) = positions.get(name.as_str()) {
                duplicates.entry(name).or_insert((first, column));
            } else {
                positions.insert(name, column);
            }
        }
        let mut places = vec![None; header.names.len()];
        let mut missing = Vec::new();
        for (place, name) in wanted.iter().enumerate() {
            if let Some(&(first, second)) = duplicates.get(name.as_str()) {
                return Err(CsvError::DuplicateColumn { line, name: name.clone(), first, second });
            }
            match positions.get(name.as_str()) {
                Some(&column) => places[column] = Some(place),
                None => missing.push(name.clone()),
            }
        }
        if !missing.is_empty() {
            return Err(CsvError::MissingColumns { names: missing });
        }
        let is_plain = places.iter().enumerate().all(|(column, place)| *place == Some(column));
        Ok(Self { names: header.names.clone(), places, n_wanted: wanted.len(), is_plain, not_negative: None })
    }

    /// The same reader, but one that refuses negative numbers in `column`, which holds the rows' weights.
    #[must_use]
    pub fn with_weights(self, column: Option<usize>) -> Self {
        Self { not_negative: column, ..self }
    }

    /// The numbers of a row.
    #[must_use]
    pub fn n_columns(&self) -> usize {
        self.n_wanted
    }

    /// The numbers of a piece of the CSV, row after row.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn read(&self, piece: &Piece) -> Result<Vec<f64>, ReadError> {
        let text = piece.text()?;
        // Eight characters a number is a rather dense file; the vector grows where it is denser.
        let mut cells = Vec::with_capacity(text.len() / 8 * self.n_wanted / self.names.len().max(1) + self.n_wanted);
        let mut slow = Vec::new();
        let (mut at, mut line) = (0, piece.line);
        while at < text.len() {
            let row = cells.len();
            cells.resize(row + self.n_wanted, 0.0);
            let end = if self.is_plain {
                plain_row(text.as_bytes(), at, &mut cells[row..])
            } else {
                self.chosen_row(text.as_bytes(), at, &mut cells[row..])
            };
            if let Some(end) = end {
                self.check_weight(&cells[row..], line)?;
                at = end;
                line += 1;
                continue;
            }
            // Anything unusual: blank lines, quotes, mistakes.
            let mut records = Records::new(&text[at..], line);
            match records.next(self.names.len(), &mut slow)? {
                Some(line) => {
                    self.take_cells(&slow, line, &mut cells[row..])?;
                    self.check_weight(&cells[row..], line)?;
                }
                None => cells.truncate(row),
            }
            at += records.position();
            line = records.line();
        }
        Ok(cells)
    }

    /// Reads an ordinary row of which some columns are wanted; see [`plain_row`].
    fn chosen_row(&self, bytes: &[u8], mut at: usize, row: &mut [f64]) -> Option<usize> {
        let last = self.places.len() - 1;
        for (column, place) in self.places.iter().enumerate() {
            match place {
                Some(place) => {
                    let (value, length) = leading_number(bytes, at)?;
                    row[*place] = value;
                    at += length;
                }
                None if bytes[at..].trim_ascii_start().first() == Some(&b'"') => return None,
                None => at += memchr3(b',', b'\n', b'\r', &bytes[at..]).unwrap_or(bytes.len() - at),
            }
            at = end_of_cell(bytes, at, column == last)?;
        }
        Some(at)
    }

    /// Takes what is wanted from the cells of a record.
    fn take_cells(&self, found: &[Cow<'_, str>], line: usize, row: &mut [f64]) -> Result<(), CsvError> {
        let expected = self.names.len();
        if found.len() > expected {
            return Err(CsvError::ExtraCells { line, expected });
        }
        if let Some(next) = self.names.get(found.len()) {
            return Err(CsvError::MissingCells { line, expected, found: found.len(), next: next.clone() });
        }
        // In the order of the result, so that the same mistake is reported first wherever the columns stand.
        let mut wanted: Vec<(usize, usize)> =
            self.places.iter().enumerate().filter_map(|(column, place)| place.map(|place| (place, column))).collect();
        wanted.sort_unstable();
        for (place, column) in wanted {
            let bad = |reason| CsvError::BadCell { line, column: self.names[column].clone(), reason };
            row[place] = number(&found[column]).map_err(bad)?;
        }
        Ok(())
    }

    fn check_weight(&self, row: &[f64], line: usize) -> Result<(), CsvError> {
        match self.not_negative {
            Some(column) if row[column] < 0.0 => {
                let reason = format!("a weight must be at least 0, but is {:?}", row[column]);
                Err(CsvError::BadCell { line, column: self.names[column].clone(), reason })
            }
            _ => Ok(()),
        }
    }
}

impl Piece {
    pub(super) fn text(&self) -> Result<&str, ReadError> {
        str::from_utf8(&self.bytes).map_err(|error| {
            let valid = error.valid_up_to();
            let line = self.line + memchr::memchr_iter(b'\n', &self.bytes[..valid]).count();
            ReadError::NotUtf8 { byte: self.offset + valid + 1, line }
        })
    }

    /// The line of the text on which a row of the piece (from 0) begins, for messages about rows that were read before.
    #[must_use]
    pub fn line_of_row(&self, row: usize) -> Option<usize> {
        let mut records = Records::new(self.text().ok()?, self.line);
        let mut cells = Vec::new();
        for _ in 0..row {
            records.next(usize::MAX, &mut cells).ok()??;
        }
        records.next(usize::MAX, &mut cells).ok()?
    }

    /// Its size.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Reads an ordinary row that begins at `at`, numbers without quotes, and returns where it ends; `None` when it is anything else,
/// right or wrong.
#[inline]
fn plain_row(bytes: &[u8], mut at: usize, row: &mut [f64]) -> Option<usize> {
    let last = row.len() - 1;
    for (column, place) in row.iter_mut().enumerate() {
        let (value, length) = leading_number(bytes, at)?;
        *place = value;
        at = end_of_cell(bytes, at + length, column == last)?;
    }
    Some(at)
}

/// The finite number at `at`, after blanks, and how far it goes.
#[inline(always)]
fn leading_number(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    short_number(bytes, at).or_else(|| any_number(&bytes[at..]))
}

/// The same, however it is written.
#[inline(never)]
fn any_number(bytes: &[u8]) -> Option<(f64, usize)> {
    let blanks = match bytes.first() {
        Some(&byte) if byte == b' ' || byte == b'\t' => bytes.iter().take_while(|&&byte| is_blank(byte)).count(),
        _ => 0,
    };
    let (value, length) = fast_float2::parse_partial::<f64, _>(&bytes[blanks..]).ok()?;
    value.is_finite().then_some((value, blanks + length))
}

/// Steps over what ends a cell: a comma, or in the last column the end of the line.
#[inline]
fn end_of_cell(bytes: &[u8], mut at: usize, is_last: bool) -> Option<usize> {
    if bytes.get(at).is_some_and(|&byte| is_blank(byte)) {
        // A carriage return inside a line is a mistake, which others describe.
        let blanks = bytes[at..].iter().take_while(|&&byte| is_blank(byte)).count();
        at += blanks;
    }
    match (bytes.get(at), is_last) {
        (Some(b','), false) | (Some(b'\n'), true) => Some(at + 1),
        (None, true) => Some(at),
        _ => None,
    }
}
