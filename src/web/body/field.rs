//! The CSV that a JSON object carries in its field `data`: decoded while the object arrives.
//!
//! Whether the object is right is known only at its end. What is wrong with it as a whole comes before what is wrong with
//! its CSV, and is worded by the decoder of whole bodies.

use std::sync::Arc;

use anyhow::anyhow;
use memchr::{memchr2, memmem};

use super::super::compute;
use super::super::error::ApiError;
use super::{BodyStream, FIRST_ROOM, Held, to_text};

/// The field's name as it stands in an object.
const NAME: &[u8] = br#""data""#;
/// The field begins among so many bytes, or it is decoded with all the rest.
const FURTHEST_START: usize = 1 << 10;

/// Decodes an object and returns its `data`.
pub(super) type Decode = Arc<dyn Fn(&str) -> Result<String, ApiError> + Send + Sync>;

/// A JSON body with a CSV in its field `data`.
pub(super) struct Field<'r> {
    stream: BodyStream<'r>,
    held: &'r Held,
    announced: u64,
    decode: Decode,
    /// All that has arrived.
    bytes: Vec<u8>,
    part: Part,
}

/// How far the field has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It may yet begin.
    Ahead,
    /// Its text begins at `start`, and is decoded up to `at`.
    Inside { start: usize, at: usize },
    /// All of its text is decoded.
    Behind { start: usize, end: usize },
    /// Only the decoder of whole bodies can tell.
    Unclear,
    /// The body has been judged.
    Judged,
}

/// What comes next.
pub(super) enum Next {
    /// More of the text.
    Chunk(Vec<u8>),
    /// All of it.
    Text(String),
    /// The body has ended, and is right.
    End,
}

impl<'r> Field<'r> {
    /// The field of a body. Of one that `is_whole` nothing is handed on before all of it is known to be right.
    pub(super) fn new(stream: BodyStream<'r>, held: &'r Held, announced: u64, is_whole: bool, decode: Decode) -> Self {
        let part = if is_whole { Part::Unclear } else { Part::Ahead };
        let bytes = Vec::with_capacity(announced.min(FIRST_ROOM) as usize);
        Self { stream, held, announced, decode, bytes, part }
    }

    /// Whether the body has ended, and has been found right or wrong as a whole.
    pub(super) fn is_judged(&self) -> bool {
        self.part == Part::Judged
    }

    /// More of the field's text.
    ///
    /// # Errors
    /// Those of the body as a whole. Nothing comes after an error.
    pub(super) async fn next(&mut self) -> Result<Next, ApiError> {
        loop {
            let has_ended = !self.receive().await?;
            if self.part == Part::Ahead {
                self.part = find(&self.bytes);
            }
            if let Part::Inside { start, at } = self.part {
                let mut text = Vec::with_capacity(self.bytes.len() - at);
                self.part = match unescape(&self.bytes, at, &mut text) {
                    Some((at, false)) => Part::Inside { start, at },
                    Some((end, true)) => Part::Behind { start, end },
                    None => Part::Unclear,
                };
                if !text.is_empty() {
                    return Ok(Next::Chunk(text));
                }
            }
            if has_ended {
                return self.judge().await;
            }
        }
    }

    /// Reads what is left of the body; what is wrong with it comes before `error`, which is about its text.
    pub(super) async fn refuse(&mut self, error: ApiError) -> ApiError {
        if self.is_judged() {
            return error;
        }
        self.part = Part::Unclear;
        let judged = async {
            while self.receive().await? {}
            self.judge().await
        };
        judged.await.err().unwrap_or(error)
    }

    /// Takes the next bytes of the body; whether there were any.
    async fn receive(&mut self) -> Result<bool, ApiError> {
        let received = async {
            let Some(chunk) = self.stream.next().await? else { return Ok(false) };
            if let Err(error) = self.held.reserve((self.bytes.len() + chunk.len()) as u64, self.announced) {
                self.bytes = Vec::new();
                return Err(self.stream.refuse(error).await);
            }
            self.bytes.extend_from_slice(&chunk);
            Ok(true)
        };
        let received = received.await;
        if received.is_err() {
            self.part = Part::Judged;
        }
        received
    }

    /// Decodes the body that is complete; its text only if that has not been handed on.
    async fn judge(&mut self) -> Result<Next, ApiError> {
        let part = std::mem::replace(&mut self.part, Part::Judged);
        let (bytes, decode) = (std::mem::take(&mut self.bytes), Arc::clone(&self.decode));
        compute(bytes.len(), move || {
            let body = to_text(bytes, "the body")?;
            let Part::Behind { start, end } = part else { return decode(&body).map(Next::Text) };
            if decode(&[&body[..start], &body[end..]].concat()).is_ok_and(|text| text.is_empty()) {
                return Ok(Next::End);
            }
            // The sentence says where in the body it is wrong.
            let _text = decode(&body)?;
            Err(ApiError::internal(anyhow!("a JSON body is right, but not without the text of its field")))
        })
        .await
    }
}

/// Where the field's text begins, if that can be told: at the first use of its name. Any other use of it before, and be it in
/// another string, makes an object that is refused.
fn find(bytes: &[u8]) -> Part {
    let head = &bytes[..bytes.len().min(FURTHEST_START)];
    let found = memmem::find(head, NAME).and_then(|at| {
        let rest = head[at + NAME.len()..].trim_ascii_start();
        let value = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start();
        value.first().map(|&first| (first, head.len() - value.len() + 1))
    });
    match found {
        Some((b'"', start)) => Part::Inside { start, at: start },
        None if bytes.len() < FURTHEST_START => Part::Ahead,
        _ => Part::Unclear,
    }
}

/// Decodes the string whose text goes on at `at`. Returns up to where, and whether it ends there; `None` if it is wrong.
fn unescape(bytes: &[u8], mut at: usize, text: &mut Vec<u8>) -> Option<(usize, bool)> {
    loop {
        let length = memchr2(b'"', b'\\', &bytes[at..]).unwrap_or(bytes.len() - at);
        let plain = &bytes[at..at + length];
        // Without a way out of the loop, which the compiler could not make wide.
        if plain.iter().fold(false, |has_control, &byte| has_control | (byte < b' ')) {
            return None;
        }
        text.extend_from_slice(plain);
        at += length;
        let escaped = match bytes[at..] {
            [b'"', ..] => return Some((at, true)),
            [] | [_] => return Some((at, false)),
            [_, escaped, ..] => escaped,
        };
        match escaped {
            b'n' => text.push(b'\n'),
            b'"' | b'\\' | b'/' => text.push(escaped),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'u' => {
                let Some(lead) = bytes.get(at + 2..at + 6) else { return Some((at, false)) };
                let mut units = vec![utf16(lead)?];
                if matches!(units[0], 0xd800..0xdc00) {
                    let Some(trail) = bytes.get(at + 6..at + 12) else { return Some((at, false)) };
                    units.push(utf16(trail.strip_prefix(b"\\u")?)?);
                    at += 6;
                }
                text.extend_from_slice(String::from_utf16(&units).ok()?.as_bytes());
                at += 4;
            }
            _ => return None,
        }
        at += 2;
    }
}

/// The number that four hexadecimal digits are.
fn utf16(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |number, &digit| Some(number << 4 | char::from(digit).to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is decoded of a body that arrives in chunks of `n` bytes, and whether the text has ended.
    fn decoded(body: &[u8], n: usize) -> Option<(Vec<u8>, bool)> {
        let mut part = Part::Ahead;
        let mut text = Vec::new();
        for arrived in (n..body.len()).step_by(n).chain([body.len()]) {
            if part == Part::Ahead {
                part = find(&body[..arrived]);
            }
            if let Part::Inside { start, at } = part {
                let (at, is_closed) = unescape(&body[..arrived], at, &mut text)?;
                part = if is_closed { Part::Behind { start, end: at } } else { Part::Inside { start, at } };
            }
        }
        let is_closed = matches!(part, Part::Behind { .. });
        (part != Part::Unclear).then_some((text, is_closed))
    }

    #[test]
    fn a_string_is_decoded_as_by_serde_wherever_its_chunks_end() {
        let strings = [
            r#""""#,
            r#""a,b\n1,2\r\n""#,
            r#""\"\\\/\b\f\t\u0041\u00e9\u20AC\ud83d\ude00é€""#,
            r#""\ud83d""#,
            r#""\ud83d\n23456""#,
            r#""\ud83d\ud83d""#,
            r#""\ude00""#,
            r#""\u+123""#,
            r#""\u12g4""#,
            r#""\x41""#,
            "\"a\n1\"",
            "\"a\u{7f}\"",
        ];
        for string in strings {
            let expected = serde_json::from_str::<String>(string).ok().map(String::into_bytes);
            let body = format!("{{\"model_id\": 1, \"data\" :\n {string}, \"x\": \"data\"}}");
            for n in 1..=body.len() {
                let found = decoded(body.as_bytes(), n).filter(|(_, is_closed)| *is_closed).map(|(text, _)| text);
                assert_eq!(found, expected, "{string} in chunks of {n}");
            }
        }
    }

    #[test]
    fn a_field_that_is_no_string_or_far_behind_is_left_to_others() {
        for body in [r#"{"data": null}"#.to_owned(), format!("{{{}\"data\": \"\"}}", " ".repeat(FURTHEST_START))] {
            assert_eq!(decoded(body.as_bytes(), 1 << 20), None, "{body}");
        }
    }
}
