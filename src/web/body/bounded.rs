//! Lists of which only so many elements are taken: a long list is refused where it becomes too long, not when it is held.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A list of at most `N` elements.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(in crate::web) struct AtMost<T, const N: usize>(pub(in crate::web) Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for AtMost<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

struct Elements<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
    type Value = AtMost<T, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == N {
                return Err(A::Error::custom(format!("the list has more than {N} elements")));
            }
            elements.push(element);
        }
        Ok(AtMost(elements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_have_so_many_elements_and_no_more() {
        let read = |text| serde_json::from_str::<Option<AtMost<u8, 3>>>(text);
        assert_eq!(read("[1,2,3]").unwrap().unwrap().0, [1, 2, 3]);
        assert!(read("null").unwrap().is_none());
        let error = read("[1,2,3,4, and nobody looks at the rest").unwrap_err();
        assert!(error.to_string().starts_with("the list has more than 3 elements"), "{error}");
    }
}
