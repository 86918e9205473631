//! What happened, counted: faults and what they hurt, operations and what they were answered.

use std::{collections::BTreeMap, sync::Mutex};

use serde_json::Value;

use crate::{faults::Fault, plan::Press};

/// Of one fault.
#[derive(Debug, Default, Clone)]
pub struct Met {
    pub injected: usize,
    /// With an operation in flight, and with evidence that something was hurt.
    pub affected: usize,
    pub answers_hurt: usize,
    pub answers_late: usize,
    pub evidence: u64,
}

#[derive(Debug, Default)]
struct Counts {
    met: BTreeMap<Fault, Met>,
    operations: BTreeMap<Press, usize>,
    answers: BTreeMap<(Press, String), usize>,
    hurt: usize,
    late: usize,
    downloads: (usize, usize),
    ours: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().expect("whole")
    }

    pub fn operation(&self, press: Press) {
        *self.lock().operations.entry(press).or_default() += 1;
    }

    pub fn answer(&self, press: Press, label: String, hurt: bool, late: bool) {
        let mut counts = self.lock();
        *counts.answers.entry((press, label)).or_default() += 1;
        counts.hurt += usize::from(hurt);
        counts.late += usize::from(late);
    }

    /// Answers that were hurt or late so far.
    pub fn hurt_and_late(&self) -> (usize, usize) {
        let counts = self.lock();
        (counts.hurt, counts.late)
    }

    /// Answers so far.
    pub fn answered(&self) -> usize {
        self.lock().answers.values().sum()
    }

    pub fn whole(&self, bytes: usize) {
        let mut counts = self.lock();
        counts.downloads.0 += 1;
        counts.downloads.1 += bytes;
    }

    /// A 500: what it says goes to the end of the report.
    pub fn fault_of_ours(&self, number: usize, problem: &Value) {
        self.lock().ours.push(format!("operation {number}: {problem}"));
    }

    pub fn met(&self, fault: Fault, change: impl FnOnce(&mut Met)) {
        change(self.lock().met.entry(fault).or_default());
    }

    /// The table, as markdown.
    pub fn table(&self, faults: &[Fault]) -> String {
        let counts = self.lock();
        let mut text = String::from(
            "| fault | injected | affected | answers hurt | late | evidence |\n|---|---|---|---|---|---|\n",
        );
        for fault in faults {
            let met = counts.met.get(fault).cloned().unwrap_or_default();
            text += &format!(
                "| {} | {} | {} | {} | {} | {} |\n",
                fault.name(),
                met.injected,
                met.affected,
                met.answers_hurt,
                met.answers_late,
                met.evidence
            );
        }
        text += "\n| operation | times | answers |\n|---|---|---|\n";
        for (press, times) in &counts.operations {
            let own = counts.answers.iter().filter(|((of, _), _)| of == press);
            let own: Vec<_> = own.map(|((_, label), times)| format!("{label}: {times}")).collect();
            text += &format!("| {press:?} | {times} | {} |\n", own.join(", "));
        }
        let (downloads, bytes) = counts.downloads;
        text +=
            &format!("\nDownloads that were whole to the checksum: {downloads} ({bytes} bytes).\n");
        if !counts.ours.is_empty() {
            text += &format!("Answers of 500: {}\n", counts.ours.len());
            for one in counts.ours.iter().take(12) {
                text += &format!("* {one}\n");
            }
        }
        text
    }
}
