//! The rank of exactly dependent columns, against elimination in exact arithmetic.

use super::super::Folds;
use super::super::double_double::Dd;
use super::super::normal::{Equilibrated, products};
use super::super::pivoted::PivotedFactor;
use super::super::primal::rank_tolerance;
use super::{params, switches::with_source};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const PRIME: i128 = (1 << 61) - 1;

/// The rank modulo a large prime, which is the rank but for an unlucky chance of 1e-17.
fn rank(mut rows: Vec<Vec<i128>>) -> usize {
    let inverse = |x: i128| {
        let (mut result, mut base, mut e) = (1, x, PRIME - 2);
        while e > 0 {
            if e & 1 == 1 {
                result = result * base % PRIME;
            }
            base = base * base % PRIME;
            e >>= 1;
        }
        result
    };
    let mut rank = 0;
    for column in 0..rows[0].len() {
        let Some(at) = (rank..rows.len()).find(|i| rows[*i][column] != 0) else { continue };
        rows.swap(rank, at);
        let factor = inverse(rows[rank][column]);
        let pivot: Vec<i128> = rows[rank].iter().map(|x| x * factor % PRIME).collect();
        for row in &mut rows[rank + 1..] {
            let first = row[column];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x = (*x - first * p % PRIME + PRIME) % PRIME);
        }
        rank += 1;
    }
    rank
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_rank_of_dependent_columns_is_found(
        base in prop::collection::vec(prop::collection::vec(-6..7_i64, 4), 3..9),
        factors in prop::collection::vec(prop::collection::vec(prop_oneof![-1..2_i64, -60..61_i64], 4), 3..7),
    ) {
        let mut values = Vec::new();
        for row in &base {
            values.push(0.0);
            values.extend(factors.iter().map(|f| (row.iter().zip(f).map(|(x, f)| x * f).sum::<i64>()) as f64 / 4.0));
        }
        let n_columns = 1 + factors.len();
        // Centred, times the number of rows: integers.
        let n = base.len() as i128;
        let columns: Vec<Vec<i128>> = (1..n_columns).map(|j| {
            let column: Vec<i128> = (0..base.len()).map(|i| (values[i * n_columns + j] * 4.0) as i128).collect();
            let sum: i128 = column.iter().sum();
            column.iter().map(|x| (n * x - sum).rem_euclid(PRIME)).collect()
        }).collect();
        let expected = rank(columns);
        let given = params(Folds::Random { n_folds: 2, seed: 0 }, &[0.0]);
        let found = with_source(&values, n_columns, &given, |source, objective| {
            let moments = source.moments::<Dd>(1, |_| Some(0), (0.0, 0.0)).unwrap();
            let products = products(objective, &moments[0]);
            let equations = Equilibrated::new(objective, &moments[0], &products, 0.0, &source.exponents);
            let n_unseen = equations.n_unseen;
            let tolerance = rank_tolerance(0.0, base.len(), factors.len());
            PivotedFactor::new(equations, tolerance, source.run).unwrap().rank() - n_unseen
        });
        prop_assert_eq!(found, expected, "{:?}", factors);
    }
}
