//! Gaps of a source: positions in the stream of a topic at which its source missed data.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::protocol::Seq;

/// Number of source gaps kept per topic and epoch; older ones are joined.
pub const SOURCE_GAPS_KEPT: usize = 32;

/// Data that a source missed; no event of this server is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGap {
    /// Last event before the gap.
    pub after: Seq,
    /// Number of trades or quotes that the source missed, if known.
    pub missing: Option<u64>,
}

impl SourceGap {
    /// Both gaps as one, at the position of the later one.
    pub fn join(self, later: Self) -> Self {
        let sum = |one: u64, other: u64| one.saturating_add(other);
        Self {
            after: self.after.max(later.after),
            missing: self
                .missing
                .zip(later.missing)
                .map(|(one, other)| sum(one, other)),
        }
    }
}

/// Source gaps of a topic in its current epoch. Most topics have none.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceGaps(Option<Box<Kept>>);

#[derive(Debug, Clone, Default)]
struct Kept {
    /// Number of all gaps, including joined ones.
    count: u64,
    /// Most recent gaps, oldest first.
    recent: Vec<SourceGap>,
}

impl SourceGaps {
    /// Gaps restored from a saved state; `count` is the number of all gaps if some were joined.
    pub(super) fn restored(count: u64, recent: Vec<SourceGap>) -> Self {
        let count = count.max(recent.len() as u64);
        Self((count > 0).then(|| Box::new(Kept { count, recent })))
    }

    pub(super) fn add(&mut self, gap: SourceGap) {
        let kept = self.0.get_or_insert_default();
        kept.count += 1;
        kept.recent.push(gap);
        if kept.recent.len() > SOURCE_GAPS_KEPT {
            let oldest = kept.recent.remove(0);
            kept.recent[0] = oldest.join(kept.recent[0]);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |kept| kept.count)
    }

    pub(super) fn recent(&self) -> &[SourceGap] {
        self.0.as_ref().map_or(&[], |kept| &kept.recent)
    }

    /// Gaps that directly follow one of these events, as one.
    #[inline]
    pub(super) fn behind(&self, events: RangeInclusive<Seq>) -> Option<SourceGap> {
        let recent = self.0.as_ref()?.recent.iter().copied();
        recent
            .filter(|gap| events.contains(&gap.after))
            .reduce(SourceGap::join)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(after: u64, missing: Option<u64>) -> SourceGap {
        SourceGap {
            after: Seq(after),
            missing,
        }
    }

    #[test]
    fn source_gaps_are_joined_and_never_forgotten() {
        let mut gaps = SourceGaps::default();
        assert_eq!((gaps.count(), gaps.behind(Seq(0)..=Seq(9))), (0, None));
        let all = SOURCE_GAPS_KEPT as u64 + 10;
        for after in 1..=all {
            gaps.add(gap(after, Some(2)));
        }
        assert_eq!((gaps.count(), gaps.recent().len()), (all, SOURCE_GAPS_KEPT));
        assert_eq!(
            gaps.behind(Seq(0)..=Seq(all)),
            Some(gap(all, Some(2 * all)))
        );
        assert_eq!(
            gaps.behind(Seq(all - 1)..=Seq(all - 1)),
            Some(gap(all - 1, Some(2)))
        );
        gaps.add(gap(all, None));
        assert_eq!(
            gaps.behind(Seq(all)..=Seq(all)),
            Some(gap(all, None)),
            "a sum with an unknown number is unknown"
        );
    }
}
