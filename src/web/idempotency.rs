//! The header `Idempotency-Key`: a request that a client may send again when it does not know whether it has arrived.
//!
//! The form of the header is that of the draft `draft-ietf-httpapi-idempotency-key-header`, a quoted string; clients that leave
//! the quotes away are understood as well. A key belongs to its call and to the API key of its caller, and is kept in the row
//! that the request made: nothing is held in memory, and any process on the same database knows it.

use std::collections::BTreeMap;
use std::convert::Infallible;

use rocket::Request;
use rocket::request::{FromRequest, Outcome};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::auth::Caller;
use super::body::RequestBody;
use super::error::ApiError;
use crate::db::Pool;
use crate::db::idempotency::{self, Digest, Earlier, Keyed, Made};

/// The header.
const HEADER: &str = "Idempotency-Key";
/// What the description of the API says of the header.
pub(super) const KEY: &str = "The client's own name for this request, in double quotes or without blanks: however often the request is \
                              sent, its work is done once.";
/// The header of a reply to a request whose work was done before.
pub(super) const REPLAYED: &str = "Idempotent-Replayed";
/// Longest key, without its quotes. A CHECK of the tables says the same.
const LONGEST: usize = 255;

/// The key of a request, as a request guard. Like a refusal of the caller, that of a bad one must wait until the body is in.
pub(super) struct IdempotencyKey(Result<Option<String>, ApiError>);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for IdempotencyKey {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self(read(request.headers().get(HEADER))))
    }
}

impl IdempotencyKey {
    /// The key, if there is one, and the body to be read.
    ///
    /// # Errors
    /// 400 when the header is not what it should be, after the body was thrown away.
    pub(super) async fn admit(self, body: RequestBody<'_>) -> Result<(Option<String>, RequestBody<'_>), ApiError> {
        match self.0 {
            Ok(key) => Ok((key, body)),
            Err(error) => Err(body.refuse(error).await),
        }
    }
}

fn read<'a>(mut headers: impl Iterator<Item = &'a str>) -> Result<Option<String>, ApiError> {
    let Some(header) = headers.next() else { return Ok(None) };
    let key = match headers.next() {
        None => parse(header.trim()),
        Some(_second) => None,
    };
    key.filter(|key| (1..=LONGEST).contains(&key.len())).map(Some).ok_or_else(|| {
        ApiError::malformed(format!(
            "{HEADER}: expected one key of 1 to {LONGEST} printable ASCII characters, in double quotes or without blanks"
        ))
    })
}

/// The key that `text` writes: a string of RFC 8941, or a word.
fn parse(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        let is_word = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\,;".contains(&byte));
        return is_word.then(|| text.to_owned());
    };
    let mut key = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(key),
            '\\' => key.push(characters.next().filter(|escaped| ['"', '\\'].contains(escaped))?),
            character @ ' '..='~' => key.push(character),
            _ => return None,
        }
    }
}

/// A request that the client calls by a key.
pub(super) struct Asked {
    key: String,
    /// What it asks for.
    fields: Vec<u8>,
}

/// For `skip_serializing_if`: a CSV is told from others by its digest, not by its text.
pub(super) fn is_digested<T>(_: &T) -> bool {
    true
}

impl Asked {
    /// The request that the client calls `key`. It is told from others by what it asks for, that is by the fields of `request`
    /// that are set, however they are written and in whatever order, and by its CSV, if it brings one.
    ///
    /// # Errors
    /// 500 when `request` has no fields.
    pub(super) fn new(key: String, request: &impl Serialize) -> Result<Self, ApiError> {
        let fields: BTreeMap<String, Value> = serde_json::to_value(request)
            .and_then(serde_json::from_value)
            .map_err(|error| ApiError::internal(error.into()))?;
        let fields: BTreeMap<_, _> = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let fields = serde_json::to_vec(&fields).map_err(|error| ApiError::internal(error.into()))?;
        Ok(Self { key, fields })
    }

    /// The same with the digest of its CSV, which is known when all of it has been read.
    pub(super) fn with_csv(self, digest: &Digest) -> Keyed {
        let digest = Sha256::new().chain_update(digest).chain_update(self.fields).finalize().into();
        Keyed { key: self.key, digest }
    }

    /// The same for a request without a CSV.
    pub(super) fn without_csv(self) -> Keyed {
        self.with_csv(&Sha256::digest("").into())
    }
}

/// The number of what an earlier request of the same key has made, if there was one.
///
/// # Errors
/// 422 when it asked for something else.
pub(super) async fn find_earlier(
    pool: &Pool,
    made: Made,
    caller: Caller,
    request: Option<&Keyed>,
) -> Result<Option<i32>, ApiError> {
    let Some(request) = request.cloned() else { return Ok(None) };
    let find = move |conn: &mut _| Ok(idempotency::find(conn, made, caller.owner(), &request)?);
    pool.run(find).await?.map(|earlier| accept(made, earlier)).transpose()
}

/// The number of what an earlier request has made.
///
/// # Errors
/// 422 when it asked for something else.
pub(super) fn accept(made: Made, earlier: Earlier) -> Result<i32, ApiError> {
    let Earlier { id, is_same } = earlier;
    let noun = match made {
        Made::Model => "model",
        Made::Dataset => "dataset",
    };
    is_same.then_some(id).ok_or_else(|| {
        ApiError::key_reused(format!("{HEADER}: the key has been used for another request, which made {noun} {id}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_strings_or_words_and_nothing_else() {
        let cases: [(&[&str], Option<&str>); 17] = [
            (&["\"8e03978e-40d5-43dd-bc93-6894a57f9324\""], Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            (&["8e03978e-40d5-43dd-bc93-6894a57f9324"], Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            (&[" \"a\" "], Some("a")),
            (&[r#""a \"b\" \\ c""#], Some(r#"a "b" \ c"#)),
            (&["order:1/2=="], Some("order:1/2==")),
            (&[""], None),
            (&["\"\""], None),
            (&["\"a"], None),
            (&["a\""], None),
            (&["\"a\"b"], None),
            (&["\"a\";p=1"], None),
            (&["\"a\", \"b\""], None),
            (&["a", "a"], None),
            (&["a b"], None),
            (&[r#""a\b""#], None),
            (&["\"ä\""], None),
            (&["\"a\tb\""], None),
        ];
        for (headers, key) in cases {
            assert_eq!(read(headers.iter().copied()).ok().flatten().as_deref(), key, "{headers:?}");
        }
        for (length, is_taken) in [(255, true), (256, false)] {
            for key in ["k".repeat(length), format!("\"{}\"", "k".repeat(length))] {
                assert_eq!(read([key.as_str()].into_iter()).is_ok(), is_taken, "{length}");
            }
        }
    }
}
