//! The numbers of a tensor, from JSON or from bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

/// Deepest nesting of a tensor's data that is looked into.
const DEEPEST: usize = 8;

/// The types of numbers that the protocol knows and a model can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum DataType {
    Fp64,
    Fp32,
    Int64,
    Int32,
    Int16,
    Int8,
    Uint64,
    Uint32,
    Uint16,
    Uint8,
}

impl DataType {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Fp64 | Self::Int64 | Self::Uint64 => 8,
            Self::Fp32 | Self::Int32 | Self::Uint32 => 4,
            Self::Int16 | Self::Uint16 => 2,
            Self::Int8 | Self::Uint8 => 1,
        }
    }

    /// The numbers that little-endian `bytes` are; a rest that does not fill a number is left out.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Self::Fp64 => numbers(bytes, f64::from_le_bytes),
            Self::Fp32 => numbers(bytes, |number| f32::from_le_bytes(number).into()),
            Self::Int64 => numbers(bytes, |number| i64::from_le_bytes(number) as f64),
            Self::Int32 => numbers(bytes, |number| i32::from_le_bytes(number).into()),
            Self::Int16 => numbers(bytes, |number| i16::from_le_bytes(number).into()),
            Self::Int8 => numbers(bytes, |number| i8::from_le_bytes(number).into()),
            Self::Uint64 => numbers(bytes, |number| u64::from_le_bytes(number) as f64),
            Self::Uint32 => numbers(bytes, |number| u32::from_le_bytes(number).into()),
            Self::Uint16 => numbers(bytes, |number| u16::from_le_bytes(number).into()),
            Self::Uint8 => numbers(bytes, |number| u8::from_le_bytes(number).into()),
        }
    }

    /// The range of a type of whole numbers.
    fn range(self) -> Option<(f64, f64)> {
        match self {
            Self::Fp64 | Self::Fp32 => None,
            Self::Int64 => Some((i64::MIN as f64, i64::MAX as f64)),
            Self::Int32 => Some((i32::MIN.into(), i32::MAX.into())),
            Self::Int16 => Some((i16::MIN.into(), i16::MAX.into())),
            Self::Int8 => Some((i8::MIN.into(), i8::MAX.into())),
            Self::Uint64 => Some((0.0, u64::MAX as f64)),
            Self::Uint32 => Some((0.0, u32::MAX.into())),
            Self::Uint16 => Some((0.0, u16::MAX.into())),
            Self::Uint8 => Some((0.0, u8::MAX.into())),
        }
    }
}

fn numbers<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|&number| decode(number)).collect()
}

/// Numbers row after row, from a list or from lists in lists.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) values: Vec<f64>,
    /// The lengths of the lists, from the outermost on, as far as the first of each depth tells.
    extents: Vec<usize>,
    /// Whether lists of the same depth differ in length, or in what they hold.
    is_ragged: bool,
}

impl Numbers {
    /// Checks that these are `count` numbers of `datatype`, flat or nested as `shape` says, and rounds them to it.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn check(&mut self, datatype: DataType, shape: &[usize], count: usize) -> Result<(), String> {
        if self.values.len() != count {
            return Err(format!("has {} numbers, but the shape holds {count}", self.values.len()));
        }
        let is_flat = self.extents.len() == 1;
        // An empty tensor may be written in many ways, such as [] for the shape [0, 2].
        if self.is_ragged || (!is_flat && count > 0 && self.extents != shape) {
            return Err("must be a flat list, or lists nested as the shape says".to_owned());
        }
        if let Some((least, most)) = datatype.range() {
            // A remainder of 0 is exact.
            let fits = |value: &f64| value.trunc().to_bits() == value.to_bits() && (least..=most).contains(value);
            if let Some(value) = self.values.iter().find(|value| !fits(value)) {
                return Err(format!("{value:?} is not a number of the datatype"));
            }
        }
        if datatype == DataType::Fp32 {
            self.values.iter_mut().for_each(|value| *value = f64::from(*value as f32));
        }
        Ok(())
    }
}

impl From<Vec<f64>> for Numbers {
    fn from(values: Vec<f64>) -> Self {
        Self { extents: vec![values.len()], values, is_ragged: false }
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Self::default();
        let reader = Reader { numbers: &mut numbers, depth: 0, leaves: &mut None };
        if reader.deserialize(deserializer)? {
            return Err(D::Error::custom("expected a list of numbers"));
        }
        Ok(numbers)
    }
}

/// Reads a number or a list at some depth; the result tells whether it was a number.
struct Reader<'a> {
    numbers: &'a mut Numbers,
    depth: usize,
    /// The depth at which numbers stand.
    leaves: &'a mut Option<usize>,
}

impl Reader<'_> {
    fn number(self, value: f64) -> bool {
        self.numbers.is_ragged |= *self.leaves.get_or_insert(self.depth) != self.depth;
        self.numbers.values.push(value);
        true
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a list of numbers")
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.number(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.number(value as f64))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        if self.depth == DEEPEST {
            return Err(A::Error::custom("lists are nested too deeply"));
        }
        let mut length = 0;
        if self.numbers.extents.len() == self.depth {
            // Its place is taken before those of the lists in it.
            self.numbers.extents.push(usize::MAX);
        }
        while list
            .next_element_seed(Reader { numbers: self.numbers, depth: self.depth + 1, leaves: self.leaves })?
            .is_some()
        {
            length += 1;
        }
        let extent = &mut self.numbers.extents[self.depth];
        if *extent == usize::MAX {
            *extent = length;
        }
        self.numbers.is_ragged |= *extent != length;
        Ok(false)
    }
}
