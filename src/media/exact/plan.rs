//! Which pictures of a group are copied, and which are encoded again. Pure.
//!
//! A *group* is a key picture and what follows it up to the next one, in decode order. Copying can begin at a key
//! picture only; it can end after any picture up to which decode order and time hold the same pictures, because
//! nothing before refers to anything behind, and nothing behind would have been shown earlier. So of a group that the
//! window begins in, all wanted pictures are encoded; of one that it ends in, only the few behind the last such place.

use super::Unfit;

/// What of a group is in the clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupCut {
    /// Pictures copied: this many from the group's beginning, in decode order.
    pub copied: usize,
    /// Times of the pictures encoded, rising; all later than those copied.
    pub encoded: Vec<i64>,
    /// Pictures, in decode order, that a decoder needs to see those encoded.
    pub decoded: usize,
}

/// Cuts a group whose pictures are shown at `times` (in decode order) to `from <= time < to`; none if nothing is left.
///
/// # Errors
/// [`Unfit`] if the group cannot be cut out of the stream: pictures before its key picture, or two at one time.
pub(super) fn cut_group(times: &[i64], from: i64, to: i64) -> Result<Option<GroupCut>, Unfit> {
    let mut order = times.to_vec();
    order.sort_unstable();
    if order.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Unfit::DoubledTimes);
    }
    if order.first() != times.first() {
        return Err(Unfit::OpenGroup);
    }
    let below = |limit: i64| order.partition_point(|&time| time < limit);
    let (low, high) = (below(from), below(to));
    if low >= high {
        return Ok(None);
    }
    let copied = if low == 0 { clean_prefix(times, high) } else { 0 };
    let encoded = order.get(low.max(copied)..high).unwrap_or_default().to_vec();
    let last = encoded.last();
    let decoded = last.and_then(|last| times.iter().rposition(|time| time <= last));
    Ok(Some(GroupCut { copied, encoded, decoded: decoded.map_or(0, |at| at + 1) }))
}

/// The greatest number of pictures, at most `most`, that come first in decode order and in time.
pub(super) fn clean_prefix(times: &[i64], most: usize) -> usize {
    let mut order = times.to_vec();
    order.sort_unstable();
    let mut latest = i64::MIN;
    let mut clean = 0;
    for (index, (&time, &ranked)) in times.iter().zip(&order).enumerate().take(most) {
        latest = latest.max(time);
        if latest == ranked {
            clean = index + 1;
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// I B B P B B P as decoded: the distances that an encoder with two B-pictures gives.
    const TIMES: [i64; 7] = [0, 9, 3, 6, 18, 12, 15];

    fn cut(from: i64, to: i64) -> (usize, Vec<i64>, usize) {
        let cut = cut_group(&TIMES, from, to).expect("closed").expect("not empty");
        (cut.copied, cut.encoded, cut.decoded)
    }

    #[test]
    fn a_whole_group_is_copied_and_a_headless_one_encoded() {
        assert_eq!(cut(0, 19), (7, vec![], 0));
        assert_eq!(cut(-100, 100), (7, vec![], 0));
        assert_eq!(cut(3, 19), (0, vec![3, 6, 9, 12, 15, 18], 7));
        assert_eq!(cut(4, 7), (0, vec![6], 4));
        assert_eq!(cut_group(&TIMES, 19, 30), Ok(None));
        assert_eq!(cut_group(&TIMES, 7, 9), Ok(None));
    }

    #[test]
    fn an_end_is_copied_up_to_the_last_place_where_nothing_waits() {
        assert_eq!(cut(0, 10), (4, vec![], 0));
        assert_eq!(cut(0, 9), (1, vec![3, 6], 4));
        assert_eq!(cut(0, 13), (4, vec![12], 6));
        assert_eq!(cut(0, 1), (1, vec![], 0));
    }

    #[test]
    fn open_groups_and_doubled_times_are_refused() {
        assert_eq!(cut_group(&[3, 0, 1, 2], 0, 9), Err(Unfit::OpenGroup));
        assert_eq!(cut_group(&[0, 3, 3], 0, 9), Err(Unfit::DoubledTimes));
    }

    proptest! {
        /// For every closed order: both kinds together are exactly the window, and the copy stands on its own.
        #[test]
        fn copied_and_encoded_are_the_window(
            order in Just((1i64..40).collect::<Vec<_>>()).prop_shuffle(),
            length in 1usize..40,
            from in -5i64..45,
            to in -5i64..45,
        ) {
            let mut times = vec![0];
            times.extend(order.into_iter().take(length - 1));
            let mut wanted: Vec<_> =
                times.iter().copied().filter(|&time| from <= time && time < to).collect();
            wanted.sort_unstable();
            let Some(cut) = cut_group(&times, from, to).unwrap() else {
                prop_assert!(wanted.is_empty());
                return Ok(());
            };
            let mut copied = times[..cut.copied].to_vec();
            copied.sort_unstable();
            prop_assert_eq!([copied.clone(), cut.encoded.clone()].concat(), wanted);
            let needed = &times[..cut.decoded];
            prop_assert!(cut.encoded.iter().all(|time| needed.contains(time)));
            // nothing left out is earlier than the end of the copy
            let rest = times[cut.copied..].iter().min();
            prop_assert!(copied.last().is_none_or(|last| rest.is_none_or(|rest| rest > last)));
        }
    }
}
