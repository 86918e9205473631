//! What a seed means: the phases of a campaign, each one fault and the operations that meet it. Made whole before
//! anything runs, so that the same seed is the same campaign; only what depends on answers (which clip, which session) is
//! chosen when the operation runs, by a number that stands here.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::faults::Fault;

/// People, and the rooms they share their screens in. A room's name begins with its community.
pub const PEOPLE: [(&str, &str); 8] = [
    ("ann", "red-one"),
    ("bob", "red-one"),
    ("cem", "red-two"),
    ("dea", "red-three"),
    ("fay", "blue-one"),
    ("gus", "blue-one"),
    ("hal", "blue-two"),
    ("ida", "blue-two"),
];

/// What somebody presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Press {
    Start,
    /// Stop what runs, and start anew: what LiveKit's faults are met by.
    Again,
    Stop,
    /// The last few seconds.
    CaptureLast,
    /// From a second to a second of the session.
    CaptureSpan,
    /// The last few seconds and some that are to come.
    CaptureOn,
    Trim,
    Delete,
    Download,
    List,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    pub person: usize,
    pub press: Press,
    pub exact: bool,
    /// Which replica is asked, modulo those there are.
    pub replica: usize,
    /// Which of several, and how long.
    pub pick: u64,
    /// Milliseconds after the answer to the one before.
    pub pause: u64,
}

/// A fault, and what is pressed while it lasts.
#[derive(Debug, Clone)]
pub struct Phase {
    pub fault: Option<Fault>,
    /// Which of several the fault hits.
    pub pick: u64,
    pub operations: Vec<Operation>,
}

/// A campaign.
#[derive(Debug)]
pub struct Plan {
    pub phases: Vec<Phase>,
}

/// What people take between two presses, milliseconds: a phase has to last as long as its fault needs to be met, and
/// sessions have to record something before they are stopped.
const THINKING: std::ops::Range<u64> = 150..1200;

/// Operations of a phase without a fault at the beginning, so that there is something to lose.
const WARM: usize = 30;

impl Plan {
    /// As many rounds of all these faults as fit into so many operations, at least `per_phase` of them to each fault; all
    /// of them together are not fewer than `operations`.
    pub fn new(seed: u64, faults: &[Fault], operations: usize, per_phase: usize) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let rounds = (operations.saturating_sub(WARM) / (per_phase * faults.len())).max(1);
        let mut order = Vec::new();
        for _ in 0..rounds {
            let mut round = faults.to_vec();
            round.shuffle(&mut random);
            order.extend(round);
        }
        // a short run meets the first of them
        order.truncate((operations.saturating_sub(WARM) / per_phase).max(1));
        let each = operations.saturating_sub(WARM).div_ceil(order.len());
        let mut phases = vec![Phase {
            fault: None,
            pick: 0,
            operations: begin(&mut random, WARM.min(operations)),
        }];
        phases.extend(order.into_iter().map(|fault| {
            let pick = random.random();
            let mut operations: Vec<_> =
                (0..each).map(|number| operation(&mut random, number, fault)).collect();
            // the replica that is to die in the middle of something has to be given something
            if fault.is_drill() {
                operations.iter_mut().for_each(|one| one.replica = (pick % 60) as usize);
            }
            Phase { fault: Some(fault), pick, operations }
        }));
        Plan { phases }
    }

    /// Load and no fault, for ever.
    pub fn calm(random: &mut StdRng, number: usize) -> Operation {
        let mut one = pressed(random, number, &USUAL);
        one.pause = random.random_range(200..1500);
        one
    }

    pub fn operations(&self) -> usize {
        self.phases.iter().map(|phase| phase.operations.len()).sum()
    }

    /// The same number for the same campaign.
    pub fn fingerprint(&self) -> String {
        let text = format!("{:?}", self.phases);
        blake3::hash(text.as_bytes()).to_hex()[..12].to_owned()
    }
}

const USUAL: [(Press, u32); 10] = [
    (Press::Start, 6),
    (Press::Again, 4),
    (Press::Stop, 4),
    (Press::CaptureLast, 28),
    (Press::CaptureSpan, 8),
    (Press::CaptureOn, 5),
    (Press::Trim, 8),
    (Press::Delete, 18),
    (Press::Download, 12),
    (Press::List, 7),
];

fn pressed(random: &mut StdRng, number: usize, among: &[(Press, u32)]) -> Operation {
    let all: u32 = among.iter().map(|(_, weight)| weight).sum();
    let mut left = random.random_range(0..all);
    let press = among.iter().find(|(_, weight)| {
        let found = left < *weight;
        left = left.saturating_sub(*weight);
        found
    });
    Operation {
        person: number % PEOPLE.len(),
        press: press.expect("weights add up").0,
        exact: random.random_bool(0.12),
        replica: random.random_range(0..60),
        pick: random.random(),
        pause: random.random_range(THINKING),
    }
}

/// Everybody starts, then captures.
fn begin(random: &mut StdRng, count: usize) -> Vec<Operation> {
    let then = [(Press::CaptureLast, 3), (Press::List, 1)];
    let mut all = Vec::new();
    for number in 0..count {
        let mut one = pressed(random, number, &then);
        if number < PEOPLE.len() {
            one.press = Press::Start;
        }
        one.pause = 1200;
        all.push(one);
    }
    all
}

/// The first operations of a phase are of a kind that its fault can hurt; the others are as they come.
fn operation(random: &mut StdRng, number: usize, fault: Fault) -> Operation {
    let hurt = fault.hurts();
    let mut one = match hurt {
        Some(among) if number < 8 => pressed(random, number, among),
        _ => pressed(random, number, &USUAL),
    };
    // phases do not all begin with the same people
    one.person = random.random_range(0..PEOPLE.len());
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_campaign() {
        let faults = Fault::all();
        let plan = Plan::new(7, &faults, 2000, 20);
        assert_eq!(plan.fingerprint(), Plan::new(7, &faults, 2000, 20).fingerprint());
        assert_ne!(plan.fingerprint(), Plan::new(8, &faults, 2000, 20).fingerprint());
        for fault in faults {
            let times = plan.phases.iter().filter(|phase| phase.fault == Some(fault)).count();
            assert!(times >= 2, "{fault:?} {times} times");
        }
    }
}
