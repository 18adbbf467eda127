//! JSON bodies: decoding, with errors that name the field.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::error::ApiError;
use crate::table::shown;

/// Decodes a JSON object; errors name the field: 400 where it is not JSON, 422 where it is not what `T` needs, or where an
/// object gives a field twice.
///
/// # Errors
/// As said.
pub(in crate::web) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    // serde would take a list of the fields' values as well.
    if text.trim_start().starts_with('[') {
        let _list: IgnoredAny = serde_json::from_str(text).map_err(|error| json_error(".", &error))?;
        return Err(ApiError::invalid("the body must be a JSON object"));
    }
    let mut decoder = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut decoder)
        .map_err(|error| json_error(&error.path().to_string(), error.inner()))?;
    decoder.end().map_err(|error| json_error(".", &error))?;
    refuse_duplicates(text)?;
    Ok(value)
}

/// Most fields of an object: the names of one object are held at once.
const MOST_FIELDS: usize = 1000;

/// serde's names of types, and ours.
const TYPE_NAMES: [(&str, &str); 6] = [
    ("expected usize", "expected a whole number"),
    ("expected u64", "expected a whole number"),
    ("expected i64", "expected a whole number"),
    ("expected f64", "expected a number"),
    ("expected a sequence", "expected a list"),
    ("expected a boolean", "expected true or false"),
];

/// A sentence from what serde says about the field at `path`, which is `.` for the whole.
pub(in crate::web) fn json_error(path: &str, error: &serde_json::Error) -> ApiError {
    // serde quotes what it found, which may be all of a client's data: both ends say what matters.
    let short = shorten(&error.to_string(), 150);
    let message = TYPE_NAMES.iter().fold(short, |said, (theirs, ours)| said.replace(theirs, ours));
    let path = shorten(path, 60);
    if error.is_data() || message.starts_with("number out of range") {
        let at = message.rfind(" at line ").unwrap_or(message.len());
        let message = &message[..at];
        ApiError::invalid(if path == "." { message.to_owned() } else { format!("{path}: {message}") })
    } else {
        ApiError::malformed(format!("the body is not valid JSON: {message}"))
    }
}

/// A text of which no more than `end` bytes are left at either end: a long one goes without its middle.
fn shorten(text: &str, end: usize) -> String {
    if text.len() <= 2 * end {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(end), text.ceil_char_boundary(text.len() - end));
    format!("{} .. {}", &text[..head], &text[tail..])
}

/// Refuses objects that give a name twice, at any depth: which of the two values counts would be a guess. Of the body
/// itself serde sees to it, of the maps and values inside it does not.
fn refuse_duplicates(text: &str) -> Result<(), ApiError> {
    // Without a second brace there is no second object.
    if text.bytes().filter(|&byte| byte == b'{').nth(1).is_none() {
        return Ok(());
    }
    let mut decoder = serde_json::Deserializer::from_str(text);
    UniqueNames.deserialize(&mut decoder).map_err(|error| json_error(".", &error))
}

/// Walks through a value and fails at the first object with two fields of the same name.
struct UniqueNames;

impl<'de> DeserializeSeed<'de> for UniqueNames {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.len() == MOST_FIELDS {
                return Err(A::Error::custom(format!("an object has more than {MOST_FIELDS} fields")));
            }
            if names.contains(&name) {
                return Err(A::Error::custom(format!("duplicate field {}", shown(&name))));
            }
            names.insert(name);
            map.next_value_seed(Self)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_name_given_twice_is_refused_at_any_depth() {
        let cases = [
            (r#"{"a": 1, "b": {"x": 1, "x": 2}}"#, Some("x")),
            (r#"{"a": [1, {"y": null, "\u0079": true}]}"#, Some("y")),
            (r#"{"a": {"x": 1}, "b": {"x": 2.5}, "x": "{{"}"#, None),
        ];
        for (text, twice) in cases {
            let said = format!("{:?}", from_json::<Value>(text));
            match twice {
                Some(name) => assert!(said.contains(&format!("duplicate field \\\"{name}\\\"")), "{text}: {said}"),
                None => assert!(said.starts_with("Ok"), "{text}: {said}"),
            }
        }
    }
    #[test]
    fn an_object_with_more_fields_than_anybody_needs_is_refused() {
        let object =
            |n| format!("{{\"a\": {{{}}}}}", (0..n).map(|i| format!("\"{i}\": 0")).collect::<Vec<_>>().join(","));
        assert!(from_json::<Value>(&object(1000)).is_ok());
        let said = format!("{:?}", from_json::<Value>(&object(1001)));
        assert!(said.contains("an object has more than 1000 fields"), "{said}");
    }
}
