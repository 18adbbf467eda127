//! Short decimals to doubles: what fills most CSVs, in half the time of a parser that is ready for any decimal.
//!
//! Eight bytes are looked at together, in one integer, the first of them lowest (Lamport 1975).

/// The lowest bit of every byte, and the highest.
const LOWEST: u64 = u64::from_ne_bytes([1; 8]);
const HIGHEST: u64 = u64::from_ne_bytes([0x80; 8]);
/// Powers of ten that are doubles.
const POWERS_OF_TEN: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The number at `at` and its length, if it is written with digits, a point and a minus sign in 15 bytes at most, and is neither at
/// the beginning nor at the end of the text; `None` for anything else. It ends where something begins that is in no number.
#[inline(always)]
pub(super) fn short_number(text: &[u8], at: usize) -> Option<(f64, usize)> {
    // Whatever ends a cell is less than a minus sign, and whatever is in a number is not, but a plus sign.
    let [low, high] = [word(text, at)?, word(text, at + 8)?].map(|word| not_below(word, b'-') ^ HIGHEST);
    if low | high == 0 {
        return None;
    }
    let length = (u128::from(low) | u128::from(high) << 64).trailing_zeros() as usize / 8;
    let is_negative = text[at] == b'-';
    let n_bytes = length - usize::from(is_negative);
    let last = word(text, (at + length).checked_sub(8)?)?;
    let (number, n_decimals) = match n_bytes {
        1..=8 => {
            let (number, n_decimals) = part(last, n_bytes)?;
            (number, n_decimals.unwrap_or(0))
        }
        9.. => {
            let first = word(text, (at + length).checked_sub(16)?)?;
            match (part(first, n_bytes - 8)?, part(last, 8)?) {
                ((first, n_decimals), (last, None)) => (first * 100_000_000 + last, n_decimals.map_or(0, |n| n + 8)),
                ((first, None), (last, Some(n_decimals))) => (first * 10_000_000 + last, n_decimals),
                _two_points => return None,
            }
        }
        _ => return None,
    };
    // Both are exact, and so the quotient is the nearest double (Clinger 1990).
    let value = number as f64 / POWERS_OF_TEN[n_decimals];
    // The sign is set without a branch: nothing can foresee it.
    Some((f64::from_bits(value.to_bits() | u64::from(is_negative) << 63), length))
}

/// The whole number that the last `n` bytes of a word are without their point, and how many digits stand behind that.
#[inline(always)]
fn part(word: u64, n: usize) -> Option<(u64, Option<usize>)> {
    let values = (word ^ (LOWEST * u64::from(b'0'))) & (u64::MAX << (64 - 8 * n));
    let others = not_below(values, 10);
    if others == 0 {
        return Some((whole(values), None));
    }
    let lowest = others >> 7;
    let point = (others << 1).wrapping_sub(lowest);
    let is_one_point = others & (others - 1) == 0 && values & point == lowest * u64::from(b'.' ^ b'0');
    let before = lowest - 1;
    // The digits in front of the point move into its place.
    let values = (values & before) << 8 | values & !(before | point);
    (is_one_point && n > 1).then(|| (whole(values), Some(7 - others.trailing_zeros() as usize / 8)))
}

/// The number with these eight digits.
#[inline(always)]
fn whole(digits: u64) -> u64 {
    const EVERY_FOURTH: u64 = 0x0000_00ff_0000_00ff;
    // Numbers of two digits, in every second byte, and from those one of eight in the upper half.
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let outer = (pairs & EVERY_FOURTH).wrapping_mul(100 + (1_000_000 << 32));
    let inner = (pairs >> 16 & EVERY_FOURTH).wrapping_mul(1 + (10_000 << 32));
    outer.wrapping_add(inner) >> 32
}

/// The highest bit of each byte of a word that is not below `least`, at most 128.
#[inline(always)]
fn not_below(word: u64, least: u8) -> u64 {
    (((word & !HIGHEST) + LOWEST * u64::from(0x80 - least)) | word) & HIGHEST
}

#[inline(always)]
fn word(text: &[u8], at: usize) -> Option<u64> {
    text.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of a number that has `after` behind it.
    fn read(number: &str, after: &str) -> Option<(u64, usize)> {
        let text = format!("{:16}{number}{after}{:16}", "", "");
        short_number(text.as_bytes(), 16).map(|(value, length)| (value.to_bits(), length))
    }

    #[test]
    fn anything_but_a_short_number_is_left_to_others() {
        let others = [
            "",
            ".",
            "-",
            "-.",
            "--1",
            "1..2",
            "1.2.3",
            "12345.678.9",
            "1e5",
            "1-2",
            "1_0",
            "+1",
            "x",
            "1\u{e9}",
            "inf",
            "1/2",
            "1:2",
            "1/234567",
            "123456789:12",
        ];
        for other in others {
            assert_eq!(read(other, ","), None, "{other}");
        }
        for text in ["1,", ",1", ",,,,,,,,1"] {
            assert_eq!(short_number(text.as_bytes(), text.find('1').unwrap()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_short_number_is_the_double_that_is_nearest(
            number in "-?([0-9]{1,15}|[0-9]{1,8}\\.[0-9]{0,8}|[0-9]{0,2}\\.[0-9]{1,14})",
            after in "[,\n\r\t ]",
        ) {
            let expected = number.parse::<f64>().unwrap().to_bits();
            let is_short = number.len() <= 15;
            match read(&number, &after) {
                // A point may be all that the first word has of it.
                None => prop_assert!(!is_short || number.trim_start_matches('-').starts_with('.')),
                found => prop_assert_eq!(found, Some((expected, number.len()))),
            }
        }
    }
}
