//! From what playlists name and what a directory holds to what is to be looked at, and when bad files were on the
//! screen. Numbers come from file names, so nothing here counts through a range of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    playlist::{EgressPlaylist, Entry},
    time::Timestamp,
    timeline::EpochClock,
};

/// A file that is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The number in its name.
    pub number: u64,
    /// Whether it may still turn out better: it was bad, and not long ago.
    pub recheck: bool,
    /// When it was on the screen.
    pub starts_at: Timestamp,
}

/// A file to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The number in its name.
    pub number: u64,
    /// Its entry, if a playlist names it; else it lies below one that is named.
    pub entry: Option<Entry>,
}

/// Whether numbers are missing between what is known and what the live playlist names, younger than `horizon`.
/// Holes before older segments are the traces of cleanup.
pub fn has_hole(known: &[Known], live: &EgressPlaylist, horizon: Timestamp) -> bool {
    let mut all: BTreeMap<u64, Option<Timestamp>> =
        live.entries.iter().map(|entry| (entry.number, None)).collect();
    all.extend(known.iter().map(|known| (known.number, Some(known.starts_at))));
    let mut expected = 0;
    for (&number, starts_at) in &all {
        if number > expected && starts_at.is_none_or(|at| at > horizon) {
            return true;
        }
        expected = number.saturating_add(1);
    }
    false
}

/// The files to look at, by number: named ones, and ones in the directory below the newest that is named or known,
/// as far as they are not indexed for good.
pub fn candidates(
    known: &[Known],
    playlists: [&EgressPlaylist; 2],
    directory: &BTreeSet<u64>,
) -> Vec<Candidate> {
    let settled: BTreeSet<u64> =
        known.iter().filter(|known| !known.recheck).map(|known| known.number).collect();
    let mut named: BTreeMap<u64, &Entry> = BTreeMap::new();
    for entry in playlists.into_iter().flat_map(|playlist| &playlist.entries) {
        named.entry(entry.number).or_insert(entry);
    }
    let newest = named.keys().copied().chain(known.iter().map(|known| known.number)).max();
    let below = directory.iter().copied().filter(|number| newest.is_some_and(|top| *number < top));
    let again = known.iter().filter(|known| known.recheck).map(|known| known.number);
    let numbers: BTreeSet<u64> = named.keys().copied().chain(below).chain(again).collect();
    numbers
        .into_iter()
        .filter(|number| !settled.contains(number))
        .map(|number| Candidate { number, entry: named.get(&number).map(|&entry| entry.clone()) })
        .collect()
}

/// An epoch's clock together with what turns labels into screen time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelClock {
    /// PTS to screen time.
    pub clock: EpochClock,
    /// Microseconds from the egress host's clock to ours.
    pub offset_us: i64,
}

impl LabelClock {
    fn shift(&self) -> i64 {
        self.offset_us.saturating_sub(self.clock.delay_ms.unwrap_or(0).saturating_mul(1000))
    }
    /// When the frame that egress labelled so was on the screen.
    pub fn screen_of_label(&self, label: Timestamp) -> Timestamp {
        label.plus_micros(self.shift())
    }
    /// The label egress would have given to what was on the screen then.
    pub fn label_of_screen(&self, screen: Timestamp) -> Timestamp {
        screen.plus_micros(self.shift().saturating_neg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::timeline::{ClockBasis, PTS_BASE};

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn playlist(numbers: &[u64]) -> EgressPlaylist {
        let entry = |&number| Entry {
            number,
            file_name: format!("seg_{number:05}.ts"),
            label: START.plus_seconds((number as i64).saturating_mul(2)),
            duration_us: 2_000_000,
        };
        EgressPlaylist { entries: numbers.iter().map(entry).collect(), ended: false }
    }

    fn known(numbers: &[u64]) -> Vec<Known> {
        let known = |&number| Known {
            number,
            recheck: false,
            starts_at: START.plus_seconds((number as i64).saturating_mul(2)),
        };
        numbers.iter().map(known).collect()
    }

    fn numbers(found: &[Candidate]) -> Vec<u64> {
        found.iter().map(|candidate| candidate.number).collect()
    }

    #[test]
    fn a_hole_is_seen_at_the_start_between_and_before_the_live_playlist() {
        let long_ago = START.plus_seconds(-1);
        assert!(!has_hole(&known(&[0, 1, 2]), &playlist(&[1, 2, 3]), long_ago));
        assert!(has_hole(&known(&[0, 2]), &playlist(&[2, 3]), long_ago));
        assert!(has_hole(&known(&[0, 1]), &playlist(&[3, 4]), long_ago));
        assert!(has_hole(&[], &playlist(&[3, 4]), long_ago));
        assert!(!has_hole(&[], &playlist(&[]), long_ago));
    }

    #[test]
    fn what_cleanup_took_is_no_hole() {
        // 0..=9 went, 10..=12 were pinned and stayed, 13..=19 went
        let known = known(&[10, 11, 12, 20, 21]);
        assert!(!has_hole(&known, &playlist(&[20, 21, 22]), START.plus_seconds(40)));
        assert!(has_hole(&known, &playlist(&[20, 21, 22]), START.plus_seconds(39)));
    }

    #[test]
    fn named_files_and_those_below_a_named_one_are_looked_at_once() {
        let directory = [0, 1, 2, 3, 4, 5, 6].into();
        let found =
            candidates(&known(&[0, 1]), [&playlist(&[4, 5]), &playlist(&[0, 1, 2])], &directory);
        assert_eq!(numbers(&found), [2, 3, 4, 5], "6 is not closed");
        assert!(found[1].entry.is_none() && found[0].entry.is_some());
    }

    #[test]
    fn bad_files_are_looked_at_again_while_they_are_young() {
        let mut known = known(&[0, 1]);
        known[1].recheck = true;
        let found = candidates(&known, [&playlist(&[0]), &playlist(&[])], &BTreeSet::new());
        assert_eq!(numbers(&found), [1]);
    }

    #[test]
    fn a_number_beyond_all_reason_costs_nothing() {
        let wild = playlist(&[0, 9_000_000_000_000_000_000]);
        assert!(has_hole(&known(&[0]), &wild, START));
        let found = candidates(&known(&[0]), [&wild, &wild], &BTreeSet::new());
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn labels_and_screen_time_are_inverse() {
        let clock =
            EpochClock::fix(Some(START), START.plus_millis(2750), PTS_BASE, -90_000_000, None);
        assert_eq!(clock.basis, ClockBasis::StartedAt);
        let labels = LabelClock { clock, offset_us: -90_000_000 };
        let screen = labels.screen_of_label(START.plus_millis(2750));
        assert_eq!(screen, clock.screen_time(PTS_BASE));
        assert_eq!(labels.label_of_screen(screen), START.plus_millis(2750));
    }
}
