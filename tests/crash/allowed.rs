//! Whether what clients saw can have happened at all: from their own clocks alone, which know of every act only that it
//! took place somewhere between its question and its answer.
//!
//! An admission is legal if it did not exceed the limit in force at its commit. So for any stretch of time: of those
//! who were admitted wholly inside it and stayed to its end, the last to be admitted found all others there, and those
//! from before who stayed too. Together they are no more than the highest limit that can have been in force somewhere
//! in the stretch; if they are, no order of commits explains what was seen.

use tokio::time::Instant;

/// Between asking and being answered.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub asked: Instant,
    pub answered: Instant,
}

/// A place that was given.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub given: Span,
    /// When it was first asked to be given back; never = it is held still.
    pub left: Option<Instant>,
}

/// A value that one person sets, one change after the other.
#[derive(Debug, Clone)]
pub struct Dial<T> {
    pub first: T,
    pub changes: Vec<(Span, T)>,
}

impl<T: Copy> Dial<T> {
    /// Every value that can have been in force at some moment from `from` to `to`.
    fn possible(&self, from: Instant, to: Instant) -> impl Iterator<Item = T> + '_ {
        let first = std::iter::once((None, self.first));
        let values = first.chain(self.changes.iter().map(|(span, value)| (Some(span), *value)));
        values.enumerate().filter_map(move |(number, (set, value))| {
            let began = set.is_none_or(|set| set.asked <= to);
            // the next change ends it, at the latest when that one was answered
            let next = self.changes.get(number);
            let lasted = next.is_none_or(|(next, _)| next.answered >= from);
            (began && lasted).then_some(value)
        })
    }
}

/// A limit: a number, and a switch that makes it nothing.
#[derive(Debug, Clone)]
pub struct Limit {
    pub most: Dial<usize>,
    pub on: Dial<bool>,
}

impl Limit {
    /// One that nobody changes.
    pub fn fixed(most: usize) -> Limit {
        let on = Dial { first: true, changes: Vec::new() };
        Limit { most: Dial { first: most, changes: Vec::new() }, on }
    }

    fn highest(&self, from: Instant, to: Instant) -> usize {
        if !self.on.possible(from, to).any(|on| on) {
            return 0;
        }
        self.most.possible(from, to).max().unwrap_or(0)
    }
}

/// A stretch in which more were admitted than any order of commits allows.
pub fn over(held: &[Held], limit: &Limit) -> Option<String> {
    let stays = |one: &Held, to: Instant| one.left.is_none_or(|left| left > to);
    for from in held.iter().map(|one| one.given.asked) {
        for to in held.iter().map(|one| one.given.answered).filter(|to| *to >= from) {
            let staying = held.iter().filter(|one| one.given.answered <= to && stays(one, to));
            let (inside, rest): (Vec<&Held>, Vec<&Held>) =
                staying.partition(|one| one.given.asked >= from);
            let before = rest.iter().filter(|one| one.given.answered <= from).count();
            let highest = limit.highest(from, to);
            if !inside.is_empty() && inside.len() + before > highest {
                let admitted = inside.len();
                return Some(format!("{admitted} admitted beside {before}, limit {highest}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Clock(Instant);

    impl Clock {
        fn span(&self, asked: u64, answered: u64) -> Span {
            let at = |second| self.0 + Duration::from_secs(second);
            Span { asked: at(asked), answered: at(answered) }
        }

        fn held(&self, asked: u64, answered: u64, left: Option<u64>) -> Held {
            let left = left.map(|second| self.0 + Duration::from_secs(second));
            Held { given: self.span(asked, answered), left }
        }
    }

    fn limit(most: usize, changes: Vec<(Span, usize)>, on: Vec<(Span, bool)>) -> Limit {
        let most = Dial { first: most, changes };
        Limit { most, on: Dial { first: true, changes: on } }
    }

    #[test]
    fn what_some_order_explains_is_allowed() {
        let clock = Clock(Instant::now());
        // a place that may have been given back in time, a limit that may have been higher in time
        let one = [clock.held(0, 2, Some(3)), clock.held(3, 5, None)];
        assert_eq!(over(&one, &Limit::fixed(1)), None);
        let two = [clock.held(0, 2, None), clock.held(3, 5, None)];
        let raised = vec![(clock.span(4, 9), 2)];
        assert_eq!(over(&two, &limit(1, raised, Vec::new())), None);
        // lowered below what is there: those who were there stay
        let lowered = vec![(clock.span(6, 7), 1)];
        assert_eq!(over(&two, &limit(2, lowered, Vec::new())), None);
        let off = vec![(clock.span(4, 6), false)];
        assert_eq!(over(&two, &limit(2, Vec::new(), off)), None);
    }

    #[test]
    fn what_no_order_explains_is_found() {
        let clock = Clock(Instant::now());
        let two = [clock.held(0, 2, None), clock.held(3, 5, None)];
        assert!(over(&two, &Limit::fixed(1)).is_some());
        // both at once, still one too many
        let at_once = [clock.held(0, 5, Some(6)), clock.held(0, 5, Some(7))];
        assert!(over(&at_once, &Limit::fixed(1)).is_some());
        let too_late = vec![(clock.span(6, 9), 2)];
        assert!(over(&two, &limit(1, too_late, Vec::new())).is_some());
        let lowered = vec![(clock.span(1, 2), 1)];
        assert!(over(&two, &limit(2, lowered, Vec::new())).is_some());
        let off = vec![(clock.span(1, 2), false), (clock.span(6, 7), true)];
        assert!(over(&two, &limit(2, Vec::new(), off)).is_some());
    }
}
