//! Whole numbers. JSON has but one kind of number, and programs there are that write 5 as 5.0.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::AtMost;

/// Doubles are whole numbers one by one up to here.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// A whole number or nothing, for `deserialize_with`.
pub(in crate::web) fn whole<'de, T: TryFrom<i128>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Whole<T>>::deserialize(from)?.map(|Whole(number)| number))
}

/// A list of at most `N` whole numbers, for `deserialize_with`.
pub(in crate::web) fn wholes<'de, T: TryFrom<i128>, const N: usize, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    Ok(AtMost::<Whole<T>, N>::deserialize(from)?.0.into_iter().map(|Whole(number)| number).collect())
}

struct Whole<T>(T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(WholeVisitor(PhantomData))
    }
}

struct WholeVisitor<T>(PhantomData<T>);

impl<T: TryFrom<i128>> WholeVisitor<T> {
    fn within<E: Error>(self, number: i128, found: Unexpected<'_>) -> Result<Whole<T>, E> {
        T::try_from(number).map(Whole).map_err(|_beyond| E::invalid_value(found, &self))
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for WholeVisitor<T> {
    type Value = Whole<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Whole<T>, E> {
        self.within(number.into(), Unexpected::Signed(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole<T>, E> {
        self.within(number.into(), Unexpected::Unsigned(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Whole<T>, E> {
        if number.abs() < LARGEST && number.trunc().to_bits() == number.to_bits() {
            self.within(number as i128, Unexpected::Float(number))
        } else {
            Err(E::invalid_type(Unexpected::Float(number), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_zero_makes_no_difference_and_any_other_is_refused() {
        let read = |text: &str| whole::<u64, _>(&mut serde_json::Deserializer::from_str(text)).ok();
        for (text, number) in [
            ("5", Some(Some(5))),
            ("5.0", Some(Some(5))),
            ("5e0", Some(Some(5))),
            ("-0.0", Some(Some(0))),
            ("null", Some(None)),
            ("18446744073709551615", Some(Some(u64::MAX))),
            ("18446744073709551616", None),
            ("1e17", None),
            ("5.5", None),
            ("-1", None),
            ("-1.0", None),
            ("\"5\"", None),
            ("true", None),
            ("[]", None),
        ] {
            assert_eq!(read(text), number, "{text}");
        }
        let list = wholes::<usize, 8, _>(&mut serde_json::Deserializer::from_str("[1, 2.0]"));
        assert_eq!(list.unwrap(), [1, 2]);
    }
}
