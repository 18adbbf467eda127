//! Cells in half the bytes of a double: most numbers that people write are decimals of few digits.
//!
//! A cell is 4 bytes, little-endian: in the upper 27 bits a whole number, in the lower 5 the power of ten to divide it by. Both are
//! exact doubles, so the quotient is the double nearest to the decimal, which is what reading its text gives. All numbers of up to
//! 7 digits between 1e-16 and 1e7 are of this kind, and whole ones up to 67,108,863. Whatever is not stands beside, as a double.

/// What the power is written in.
const POWER_BITS: u32 = 5;
/// Stands for a power where the cell is the next one of those beside.
const BESIDE: u32 = 31;
/// The largest power of ten that is a double.
const MOST_POWER: usize = 22;
/// The powers of ten, as far as they are needed.
const TENS: [f64; 32] = {
    let mut tens = [1.0; 32];
    let mut power = 1;
    while power <= MOST_POWER {
        tens[power] = 10.0 * tens[power - 1];
        power += 1;
    }
    tens
};
/// For each exponent of a double the largest power of ten that keeps the product in 27 bits with their sign.
const POWERS: [u8; 2048] = {
    let mut powers = [0; 2048];
    let mut exponent = 0;
    while exponent < 1023 + 26 {
        // Above all numbers of this exponent; no smaller ones differ in what comes of them.
        let above = if exponent < 923 { 923 } else { exponent } + 1;
        let above = f64::from_bits((above as u64) << 52);
        let mut power = 0;
        while power < MOST_POWER && above * TENS[power + 1] <= (1 << 26) as f64 {
            power += 1;
        }
        powers[exponent] = power as u8;
        exponent += 1;
    }
    powers
};
/// Added to a double below 2^51 and taken away again, it rounds it to a whole number, which stands in the lower bits of the sum.
const ROUNDING: f64 = 1.5 * (1_u64 << 52) as f64;

/// Packed cells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// 4 bytes for each.
    pub(super) cells: Vec<u8>,
    /// The doubles of those that are no short decimals, little-endian, in their order.
    pub(super) others: Vec<u8>,
}

/// Packs cells; `None` where that does not save a quarter of their bytes.
pub(super) fn pack(cells: &[f64]) -> Option<Packed> {
    let most_others = cells.len() / 4;
    let mut packed = vec![0; 4 * cells.len()];
    let mut others = Vec::new();
    let (places, _) = packed.as_chunks_mut::<4>();
    for (place, &cell) in places.iter_mut().zip(cells) {
        let power = POWERS[(cell.to_bits() >> 52 & 0x7ff) as usize];
        let number = (cell * TENS[usize::from(power)] + ROUNDING).to_bits() as u32;
        let mut code = number << POWER_BITS | u32::from(power);
        if decimal(code).to_bits() != cell.to_bits() {
            if others.len() / 8 >= most_others {
                return None;
            }
            others.extend(cell.to_le_bytes());
            code = BESIDE;
        }
        *place = code.to_le_bytes();
    }
    Some(Packed { cells: packed, others })
}

/// The cells again; `None` if these bytes are not what [`pack`] has made.
pub(super) fn unpack(cells: &[u8], others: &[u8]) -> Option<Vec<f64>> {
    let ((codes, []), (others, [])) = (cells.as_chunks(), others.as_chunks()) else { return None };
    let mut others = others.iter();
    let mut cells = Vec::with_capacity(codes.len());
    for &code in codes {
        let code = u32::from_le_bytes(code);
        let is_beside = code & BESIDE == BESIDE;
        cells.push(if is_beside { f64::from_le_bytes(*others.next()?) } else { decimal(code) });
    }
    others.as_slice().is_empty().then_some(cells)
}

/// How many of packed cells stand beside.
pub(super) fn count_beside(cells: &[u8]) -> usize {
    let (codes, _) = cells.as_chunks();
    codes.iter().filter(|&&code| u32::from_le_bytes(code) & BESIDE == BESIDE).count()
}

/// The number that a code stands for.
#[inline(always)]
fn decimal(code: u32) -> f64 {
    f64::from(code as i32 >> POWER_BITS) / TENS[(code & BESIDE) as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(cells: &[f64]) -> Vec<u64> {
        cells.iter().map(|cell| cell.to_bits()).collect()
    }

    /// How many cells stand beside.
    #[track_caller]
    fn n_beside(cells: &[f64]) -> usize {
        let packed = pack(cells).unwrap();
        assert_eq!(packed.cells.len(), 4 * cells.len());
        assert_eq!(bits(&unpack(&packed.cells, &packed.others).unwrap()), bits(cells));
        packed.others.len() / 8
    }

    #[test]
    fn decimals_of_seven_digits_and_whole_numbers_are_packed() {
        for exponent in -15..=0 {
            let cells: Vec<f64> =
                (1..1000).map(|i| format!("{}e{exponent}", i * 10_007 - 5_000_000).parse().unwrap()).collect();
            assert_eq!(n_beside(&cells), 0, "e{exponent}");
        }
        assert_eq!(n_beside(&[0.0, 1.0, -1.0, 67_108_863.0, -67_108_863.0, 0.5, 1e-22]), 0);
    }

    #[test]
    fn what_is_no_short_decimal_stands_beside() {
        let odd = [-0.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e300, 67_108_865.0, 1.0 / 3.0, 1e-23];
        for other in odd {
            assert_eq!(n_beside(&[1.5, other, 2.5, 3.5, other, 0.25, 2.0, 1.0]), 2, "{other:e}");
        }
        assert_eq!(pack(&odd), None);
        assert_eq!(unpack(&[BESIDE as u8, 0, 0, 0], &[]), None);
        assert_eq!(unpack(&[0; 4], &[0; 8]), None);
        assert_eq!(unpack(&[0; 3], &[]), None);
    }

    proptest! {
        #[test]
        fn every_number_comes_back_as_it_was(others in prop::collection::vec(any::<u64>(), 0..50)) {
            let finite = others.iter().map(|&bits| f64::from_bits(bits)).filter(|cell| cell.is_finite());
            let cells: Vec<f64> = finite.flat_map(|cell| [cell, 1.5, -2.25, 3e-7, 1e5]).collect();
            n_beside(&cells);
        }
    }
}
