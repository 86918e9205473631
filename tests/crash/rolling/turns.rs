//! Releases change places, again and again, each time while somebody is being answered by the process that goes: by
//! SIGTERM or by `kill -9`, forward and back in turn. What each change of places did to whom is counted.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;

use super::{Release, Town};
use crate::process::Process;

/// How many words of each release are waited for before it is looked at what was felt,
const WORDS: usize = 10;
/// and how often, before the next change comes anyway.
const LOOKS: usize = 4;

/// One change of places.
struct Turn {
    to: Release,
    killed: bool,
    /// Requests that the process was answering when it went.
    in_flight: usize,
    /// Requests to it, or to who took its place, that had to be made again.
    put_off: usize,
    /// Clips that the one release accepted and the other made.
    crossed: usize,
}

impl Turn {
    /// Somebody was being answered, and the change was felt: somebody had to ask again, or work changed releases.
    fn affected(&self) -> bool {
        self.in_flight > 0 && self.put_off + self.crossed > 0
    }
}

pub struct Turns(Vec<Turn>);

impl Turns {
    /// Three run, of both releases, before and after.
    pub async fn taken(town: &Town, random: &mut StdRng, turns: usize) -> Turns {
        town.called("turns");
        let mut reader = Reader::new(town);
        let mut taken = Vec::new();
        for number in 1..=turns {
            let turn = one(town, random, &mut reader).await;
            town.all_is_well(&format!("turn {number}")).await;
            taken.push(turn);
        }
        Turns(taken)
    }

    fn affected(&self) -> usize {
        self.0.iter().filter(|turn| turn.affected()).count()
    }

    pub fn told(&self) {
        println!(
            "| turn | to | by | being answered | asked again | clips of both |\n|---|---|---|---|---|---|"
        );
        for (number, turn) in (1..).zip(&self.0) {
            let Turn { to, in_flight, put_off, crossed, .. } = turn;
            let by = if turn.killed { "kill -9" } else { "SIGTERM" };
            println!("| {number} | {to:?} | {by} | {in_flight} | {put_off} | {crossed} |");
        }
        println!("{} of {} changes of places affected something", self.affected(), self.0.len());
    }

    /// Nearly all were felt; otherwise this shows nothing.
    pub fn judge(&self) {
        assert!(self.affected() * 4 >= self.0.len() * 3, "too few were felt to prove anything");
    }
}

async fn one(town: &Town, random: &mut StdRng, reader: &mut Reader) -> Turn {
    let (old, new) = (town.all(Release::Old), town.all(Release::New));
    let (from, to) = if old.len() > new.len() { (old, Release::New) } else { (new, Release::Old) };
    let goes = *from.choose(random).expect("two of them");
    let killed = random.random_bool(0.5);
    let put_off = town.traffic()[goes].put_off;
    let in_flight = town.is_answering(goes).await;
    if killed {
        town.kill(goes).await;
    } else {
        town.end(goes).await;
    }
    reader.read(town);
    town.begin(goes, to).await;
    let mut turn = Turn { to, killed, in_flight, put_off: 0, crossed: 0 };
    for _ in 0..LOOKS {
        town.each_release_answers(WORDS).await;
        reader.read(town);
        turn.put_off = town.traffic()[goes].put_off - put_off;
        turn.crossed += reader.crossed();
        if turn.affected() {
            break;
        }
    }
    turn
}

impl Town {
    /// Waits until somebody waits for that process; how many do.
    async fn is_answering(&self, process: usize) -> usize {
        loop {
            let moved = self.moved.notified();
            let in_flight = self.traffic()[process].in_flight;
            if in_flight > 0 {
                return in_flight;
            }
            moved.await;
        }
    }

    /// Waits until each release has said so many things more.
    async fn each_release_answers(&self, words: usize) {
        let said = |release| {
            let traffic = self.traffic();
            self.all(release).into_iter().map(|process| traffic[process].answered).sum::<usize>()
        };
        let before = [Release::Old, Release::New].map(|release| (release, said(release)));
        loop {
            let moved = self.moved.notified();
            if before.iter().all(|(release, before)| said(*release) >= before + words) {
                return;
            }
            moved.await;
        }
    }
}

/// Who accepted which clip and who made it, as the processes' logs tell.
struct Reader {
    marks: [u64; 3],
    accepted: BTreeMap<String, Release>,
    made: BTreeMap<String, Release>,
}

impl Reader {
    fn new(town: &Town) -> Reader {
        let marks = town.processes().map(Process::log_mark);
        Reader { marks, accepted: BTreeMap::new(), made: BTreeMap::new() }
    }

    /// Reads on. What a process said belongs to the release that it is of, so this comes before it is another.
    fn read(&mut self, town: &Town) {
        let releases = *town.releases.lock().unwrap();
        for ((process, release), mark) in
            town.processes().into_iter().zip(releases).zip(&mut self.marks)
        {
            let said = process.log_since(*mark);
            let whole = said.rfind('\n').map_or(0, |end| end + 1);
            *mark += whole as u64;
            let lines = said[..whole].lines();
            for line in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                let told = match line["message"].as_str() {
                    Some("capture accepted") => &mut self.accepted,
                    Some("clip ready") => &mut self.made,
                    _ => continue,
                };
                let Some(clip) = line["clip.id"].as_str() else { continue };
                told.insert(clip.to_owned(), release);
            }
        }
    }

    /// How many clips are ready since the last look that one release accepted and the other made.
    fn crossed(&mut self) -> usize {
        let (made, accepted) = (std::mem::take(&mut self.made), &mut self.accepted);
        let (known, later): (BTreeMap<_, _>, _) =
            made.into_iter().partition(|(clip, _)| accepted.contains_key(clip));
        self.made = later;
        let crossed = |(clip, by): &(String, Release)| accepted.remove(clip) != Some(*by);
        known.into_iter().filter(crossed).count()
    }
}
