//! The moments of all training sets: for each fold, of the rows outside it, as sums over the other folds.

use super::{
    error::RidgeError,
    folds::Partition,
    gather::{self, Source},
    moments::Moments,
    precision::Real,
    run::Phase,
};
use std::ops::Range;

/// Up to so many folds, the others of each are summed anew; above, in O(log) sums.
pub(super) const FEW: usize = 8;
/// Groups of folds that are worked on in parallel.
pub(super) const GROUPS: usize = 16;

/// The moments by folds, as far as they fit in memory: with very many folds only those of batches of folds, and the
/// folds' own are summed again from the rows when they are needed.
pub(super) struct FoldMoments<'a, T> {
    partition: &'a Partition,
    /// Ranges of folds.
    batches: Vec<Range<usize>>,
    /// One for each batch, or for each fold if there is only one batch.
    parts: Vec<Moments<T>>,
}

impl<'a, T: Real> FoldMoments<'a, T> {
    /// One pass over the rows.
    pub(super) fn new(source: &Source<'_>, partition: &'a Partition, share: (f64, f64)) -> Result<Self, RidgeError> {
        let n_folds = partition.n_folds();
        let batch = folds_at_once(source.rows.n_rows(), source.p(), n_folds, size_of::<T>());
        let n_batches = n_folds.div_ceil(batch);
        let batches: Vec<_> = (0..n_batches).map(|b| b * n_folds / n_batches..(b + 1) * n_folds / n_batches).collect();
        let parts = if n_batches == 1 {
            source.moments(n_folds, |row| Some(partition.fold_of(row)), share)?
        } else {
            let batch_of = |fold: usize| batches.partition_point(|batch| batch.end <= fold);
            source.moments(n_batches, |row| Some(batch_of(partition.fold_of(row))), share)?
        };
        Ok(Self { partition, batches, parts })
    }

    /// `visit(fold, moments of the rows outside the fold, moments of the fold, share)` for all folds and `n_shares` shares of
    /// the work on each, as tasks of their own, so that few folds keep many threads busy. `beside` is done among them.
    /// Only for folds that [`are_few`](Self::are_few).
    pub(super) fn for_each_share<R: Send>(
        &self,
        source: &Source<'_>,
        phase: &Phase<'_>,
        n_shares: usize,
        beside: &(dyn Fn() + Sync),
        visit: impl Fn(&Moments<T>, &Moments<T>, usize) -> Result<R, RidgeError> + Sync,
    ) -> Result<Vec<Vec<R>>, RidgeError> {
        let n_folds = self.parts.len();
        let found = source.run.map(n_folds * n_shares + 1, source.is_small(), |t| {
            let Some(t) = t.checked_sub(1) else {
                beside();
                return Ok(None);
            };
            let (fold, share) = (t / n_shares, t % n_shares);
            let others = self.parts.iter().enumerate().filter(|(i, _)| *i != fold).map(|(_, part)| part);
            let training = Moments::sum(&others.collect::<Vec<_>>());
            let found = visit(&training, &self.parts[fold], share)?;
            if share + 1 == n_shares {
                phase.step()?;
            }
            Ok(Some(found))
        })?;
        let mut found = found.into_iter().flatten();
        Ok((0..n_folds).map(|_| found.by_ref().take(n_shares).collect()).collect())
    }

    /// Whether the folds are so few, and all in memory, that [`Self::for_each_share`] is for them.
    pub(super) fn are_few(&self) -> bool {
        self.batches.len() == 1 && self.parts.len() <= FEW
    }

    /// The moments of all rows.
    pub(super) fn total(&self) -> Moments<T> {
        Moments::sum(&self.parts.iter().collect::<Vec<_>>())
    }

    /// `visit(fold, moments of the rows outside the fold, moments of the fold)` for all folds, in order; batches of folds
    /// one after another, calling `finish` after each with its folds and what was found.
    pub(super) fn for_each_fold<R: Send>(
        &self,
        source: &Source<'_>,
        phase: &Phase<'_>,
        visit: impl Fn(usize, &Moments<T>, &Moments<T>) -> Result<R, RidgeError> + Sync,
        mut finish: impl FnMut(Range<usize>, Vec<R>) -> Result<(), RidgeError>,
    ) -> Result<(), RidgeError> {
        if self.batches.len() == 1 {
            let found = leave_out(source, 0, &self.parts, &[], phase, &visit)?;
            return finish(self.batches[0].clone(), found);
        }
        for (b, batch) in self.batches.iter().enumerate() {
            let cell_of = |row| {
                let fold = self.partition.fold_of(row);
                batch.contains(&fold).then(|| fold - batch.start)
            };
            let folds = source.moments(batch.len(), cell_of, (0.0, 0.0))?;
            let others: Vec<_> = self.parts.iter().enumerate().filter(|(i, _)| *i != b).map(|(_, part)| part).collect();
            let outside = Moments::sum(&others);
            finish(batch.clone(), leave_out(source, batch.start, &folds, &[&outside], phase, &visit)?)?;
        }
        Ok(())
    }
}

/// How many folds' own moments are held at once, of numbers of so many bytes: as many as there is room for, but at least the square
/// root of the number of folds, which balances the number of batches and their size.
fn folds_at_once(n_rows: usize, p: usize, n_folds: usize, n_bytes: usize) -> usize {
    let fold_values = p.saturating_mul(p).saturating_mul(n_bytes / 8);
    (gather::room_for_sums(n_rows, p) / fold_values).max(n_folds.isqrt()).clamp(1, n_folds)
}

/// How many moments [`FoldMoments`] holds: of the folds, or of batches of them.
pub(super) fn n_parts(n_rows: usize, p: usize, n_folds: usize, n_bytes: usize) -> usize {
    let batch = folds_at_once(n_rows, p, n_folds, n_bytes);
    if batch == n_folds { n_folds } else { n_folds.div_ceil(batch) + batch }
}

/// Splits the folds into a fixed number of groups, which run in parallel.
fn leave_out<T: Real, R: Send>(
    source: &Source<'_>,
    first: usize,
    folds: &[Moments<T>],
    outside: &[&Moments<T>],
    phase: &Phase<'_>,
    visit: &(impl Fn(usize, &Moments<T>, &Moments<T>) -> Result<R, RidgeError> + Sync),
) -> Result<Vec<R>, RidgeError> {
    let n_groups = folds.len().min(GROUPS);
    let groups: Vec<_> = (0..n_groups).map(|g| g * folds.len() / n_groups..(g + 1) * folds.len() / n_groups).collect();
    let sums: Vec<_> =
        groups.iter().map(|group| Moments::sum(&folds[group.clone()].iter().collect::<Vec<_>>())).collect();
    let found = source.run.map(n_groups, source.is_small(), |g| {
        let others = sums.iter().enumerate().filter(|(i, _)| *i != g).map(|(_, sum)| sum);
        let training = Moments::sum(&others.chain(outside.iter().copied()).collect::<Vec<_>>());
        let mut found = Vec::new();
        descend(first + groups[g].start, &folds[groups[g].clone()], &training, &mut |fold, training, own| {
            found.push(visit(fold, training, own)?);
            phase.step()
        })?;
        Ok(found)
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Visits each of `folds` with the sum of `outside` and all other folds, in O(log) sums a fold: the halves take turns.
fn descend<T: Real>(
    first: usize,
    folds: &[Moments<T>],
    outside: &Moments<T>,
    visit: &mut impl FnMut(usize, &Moments<T>, &Moments<T>) -> Result<(), RidgeError>,
) -> Result<(), RidgeError> {
    if let [fold] = folds {
        return visit(first, outside, fold);
    }
    let (left, right) = folds.split_at(folds.len() / 2);
    let with = |half: &[Moments<T>]| Moments::sum(&half.iter().chain([outside]).collect::<Vec<_>>());
    descend(first, left, &with(right), visit)?;
    descend(first + left.len(), right, &with(left), visit)
}
