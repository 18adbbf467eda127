//! CSV text split into cells: RFC 4180 with what people's files need beyond it.
//!
//! Lines end in LF or CRLF, blank lines are skipped, blanks around a cell are ignored whether the cell is quoted or not
//! (which is why a general CSV library does not serve here).

use std::borrow::Cow;

use super::error::CsvError;
use super::pieces::is_blank;

/// Walks over the records of a CSV text.
#[derive(Debug, Clone)]
pub(super) struct Records<'a> {
    text: &'a str,
    position: usize,
    /// The number of the line that `position` is on, from 1.
    line: usize,
}

impl<'a> Records<'a> {
    /// Those of a text that begins on line `line`; a byte order mark has been dropped.
    pub(super) fn new(text: &'a str, line: usize) -> Self {
        Self { text, position: 0, line }
    }

    /// How far the records have been read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The line that this is on.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Reads the next record into `cells` and returns the line that it starts on; `None` at the end.
    ///
    /// Stops after `most + 1` cells: whoever expects no more than `most` need not hold them all to refuse them.
    pub(super) fn next(&mut self, most: usize, cells: &mut Vec<Cow<'a, str>>) -> Result<Option<usize>, CsvError> {
        cells.clear();
        if !self.skip_blank_lines() {
            return Ok(None);
        }
        let start = self.line;
        loop {
            let (cell, ended) = self.cell(cells.len())?;
            cells.push(cell);
            if ended || cells.len() > most {
                return Ok(Some(start));
            }
        }
    }

    /// Moves to the first line that holds anything; `false` when there is none.
    fn skip_blank_lines(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let mut at = self.position;
        while at < bytes.len() {
            match bytes[at] {
                b'\n' => {
                    self.line += 1;
                    self.position = at + 1;
                }
                byte if is_blank(byte) => {}
                _ => return true,
            }
            at += 1;
        }
        self.position = at;
        false
    }

    /// Reads one cell and what ends it; the flag says that the record ended with it.
    fn cell(&mut self, column: usize) -> Result<(Cow<'a, str>, bool), CsvError> {
        let bytes = self.text.as_bytes();
        while self.position < bytes.len() && is_blank(bytes[self.position]) {
            self.position += 1;
        }
        if bytes.get(self.position) == Some(&b'"') {
            return self.quoted_cell(column);
        }
        let start = self.position;
        let length = bytes[start..].iter().position(|&byte| byte == b',' || byte == b'\n');
        let end = length.map_or(bytes.len(), |length| start + length);
        self.position = end;
        let content = self.text[start..end].trim_end_matches(is_blank_char);
        if content.bytes().any(|byte| byte == b'\r') {
            return Err(CsvError::BareCarriageReturn { line: self.line, column });
        }
        Ok((Cow::Borrowed(content), self.end_of_cell()))
    }

    fn quoted_cell(&mut self, column: usize) -> Result<(Cow<'a, str>, bool), CsvError> {
        let opened = self.line;
        let mut content = Cow::Borrowed("");
        self.position += 1;
        loop {
            let Some(length) = self.text[self.position..].find('"') else {
                return Err(CsvError::UnclosedQuote { line: opened, column });
            };
            let part = &self.text[self.position..self.position + length];
            self.line += part.bytes().filter(|&byte| byte == b'\n').count();
            self.position += length + 1;
            if content.is_empty() {
                content = Cow::Borrowed(part);
            } else {
                content.to_mut().push_str(part);
            }
            // A doubled quote stands for one.
            if !self.text[self.position..].starts_with('"') {
                break;
            }
            content.to_mut().push('"');
            self.position += 1;
        }
        let bytes = self.text.as_bytes();
        while self.position < bytes.len() && is_blank(bytes[self.position]) {
            self.position += 1;
        }
        match bytes.get(self.position) {
            None | Some(b',' | b'\n') => {}
            Some(_) => return Err(CsvError::TextAfterQuote { line: self.line, column }),
        }
        let content = match content {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(is_blank_char)),
            Cow::Owned(text) => Cow::Owned(text.trim_matches(is_blank_char).to_owned()),
        };
        Ok((content, self.end_of_cell()))
    }

    /// Steps over the comma or line break at `position`; whether it was the record's last.
    fn end_of_cell(&mut self) -> bool {
        let ended = self.text.as_bytes().get(self.position) != Some(&b',');
        if ended && self.position < self.text.len() {
            self.line += 1;
        }
        self.position = (self.position + 1).min(self.text.len());
        ended
    }
}

fn is_blank_char(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}
