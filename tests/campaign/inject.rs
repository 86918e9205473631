//! How each fault is done and undone, and what proves that it hurt something.

use std::{sync::atomic::Ordering, time::Duration};

use base64::Engine as _;
use livekit_api::access_token::AccessToken;
use livekit_replay::{
    clock::{Clock, SystemClock},
    simulator::{CallAction, CallFault, EgressView, HookAction, HookFault},
};
use sea_orm::{ConnectionTrait, DatabaseBackend, FromQueryResult, Statement};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{faults::Fault as F, field::Field, ledger::Known, plan::Phase};

const LOOK: Duration = Duration::from_millis(20);
const RUNNING: &[&str] = &["EGRESS_STARTING", "EGRESS_ACTIVE"];

/// One fault, while it lasts.
pub struct Injection<'a> {
    field: &'a Field,
    fault: F,
    pick: u64,
    /// The phase's operations are over.
    quiet: CancellationToken,
    hurt_before: (usize, usize),
    hits_before: u64,
    marks: Vec<u64>,
}

impl<'a> Injection<'a> {
    pub fn new(field: &'a Field, phase: &Phase, quiet: CancellationToken) -> Option<Injection<'a>> {
        let fault = phase.fault?;
        let marks = field.processes().map(|process| process.log_mark()).collect();
        let mut injection = Injection {
            field,
            fault,
            pick: phase.pick,
            quiet,
            hurt_before: (0, 0),
            hits_before: 0,
            marks,
        };
        injection.hurt_before = field.tally.hurt_and_late();
        injection.hits_before = injection.hits();
        Some(injection)
    }

    /// Does it while an operation is under way, keeps it up, undoes it, and counts what it met.
    pub async fn run(self) {
        let in_flight = self.in_flight().await;
        let began = SystemClock.now();
        let evidence = self.happen().await;
        self.field.note_broken(self.fault, began);
        let (hurt, late) = self.hurt();
        let affected = in_flight && evidence > 0;
        self.field.tally.met(self.fault, |met| {
            met.injected += 1;
            met.affected += usize::from(affected);
            met.answers_hurt += hurt;
            met.answers_late += late;
            met.evidence += evidence;
        });
    }

    /// Waits for an operation under way.
    async fn in_flight(&self) -> bool {
        loop {
            if self.field.under_way() > 0 {
                return true;
            }
            if self.quiet.is_cancelled() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn hurt(&self) -> (usize, usize) {
        let (hurt, late) = self.field.tally.hurt_and_late();
        (hurt - self.hurt_before.0, late - self.hurt_before.1)
    }

    fn answers(&self) -> u64 {
        self.hurt().0 as u64
    }

    /// What the fault's own means count.
    fn hits(&self) -> u64 {
        let sim = &self.field.service.sim;
        match self.fault {
            F::LivekitGone => self.field.gate.turned_away(),
            F::LivekitSlow
            | F::LivekitFails
            | F::LivekitRefuses
            | F::StartTimesOut
            | F::TickOnTick => sim.call_fault_hits(),
            F::HooksLost | F::HooksLate | F::HooksDoubled | F::HooksSwapped => {
                sim.webhook_fault_hits()
            }
            F::FfmpegHangs | F::FfmpegCrashes | F::FfmpegRubbish => self.field.ffmpeg.hits(),
            F::HostClockForward | F::HostClockBack => sim.egresses().len() as u64,
            fault if fault.needs_mounts() => {
                self.field.stores.as_ref().map_or(0, |stores| stores.hurt())
            }
            _ => 0,
        }
    }

    fn new_hits(&self) -> u64 {
        self.hits() - self.hits_before
    }

    fn lines(&self, words: &[&str]) -> u64 {
        let each = self.field.processes().zip(&self.marks);
        each.map(|(process, mark)| process.lines_since(*mark, words) as u64).sum()
    }

    /// As long as the fault lasts; shorter when nobody presses any more and it hurt somebody.
    async fn last(&self, hurt: impl Fn() -> u64) -> u64 {
        let end = Instant::now() + Duration::from_millis(self.fault.lasts());
        while Instant::now() < end && !(self.quiet.is_cancelled() && hurt() > 0) {
            tokio::time::sleep(LOOK).await;
        }
        hurt()
    }

    async fn happen(&self) -> u64 {
        let sim = &self.field.service.sim;
        match self.fault {
            F::Kill | F::Terminate => self.end_a_replica().await,
            F::DrillAccept => self.drill("after-accept-commit").await,
            F::DrillRename => self.drill("between-rename-and-commit").await,
            F::DrillSettle => self.drill("during-settle").await,
            F::HostDies | F::EgressFails | F::EgressAborts | F::EgressLimit => {
                self.hurt_egress().await
            }
            F::LivekitGone => {
                self.field.gate.close();
                let seen = self.last(|| self.new_hits()).await;
                self.field.gate.open();
                seen
            }
            F::LivekitSlow => self.calls("*", CallAction::Delay { ms: 2500 }).await,
            F::LivekitFails => self.calls("*", CallAction::Http { status: 500 }).await,
            F::LivekitRefuses => {
                let (code, msg) = ("unauthenticated".to_owned(), "invalid API key".to_owned());
                self.calls("*", CallAction::Error { code, msg }).await
            }
            F::StartTimesOut => {
                self.calls("StartTrackCompositeEgress", CallAction::HangAfter).await
            }
            F::TickOnTick => self.calls("ListEgress", CallAction::Delay { ms: 5000 }).await,
            F::HooksLost => self.hooks(HookAction::Lose).await,
            F::HooksLate => self.hooks(HookAction::Delay { ms: 4000 }).await,
            F::HooksDoubled => self.hooks(HookAction::Double).await,
            F::HooksSwapped => self.hooks(HookAction::SwapWithNext).await,
            F::HooksForged => self.forge().await,
            F::ClockForward => self.forward().await,
            F::ClockBack => self.clock(-5_000).await,
            F::HostClockForward | F::HostClockBack => {
                let skew = if self.fault == F::HostClockForward { 90_000 } else { -90_000 };
                sim.step_host_clock(skew);
                let seen = self.last(|| self.new_hits()).await;
                sim.step_host_clock(-skew);
                seen
            }
            F::DatabaseCut => self.cut_connections().await,
            F::DatabaseRestarts => {
                self.field.cluster.as_ref().expect("on PostgreSQL").restart().await;
                self.answers() + self.lines(&["database", "Connection"])
            }
            F::DatabaseLocked => self.hold_a_transaction().await,
            F::FfmpegHangs => self.ffmpeg("hang").await,
            F::FfmpegCrashes => self.ffmpeg("crash").await,
            F::FfmpegRubbish => self.ffmpeg("rubbish").await,
            F::FfmpegMissing => self.ffmpeg("missing").await,
            fault => {
                let stores = self.field.stores.as_ref().expect("mounted");
                stores.break_by(fault);
                let seen = self.last(|| self.new_hits() + self.answers()).await;
                stores.mend();
                seen
            }
        }
    }

    async fn calls(&self, method: &str, action: CallAction) -> u64 {
        let sim = &self.field.service.sim;
        let for_ms = Some(self.fault.lasts());
        sim.add_call_fault(CallFault { method: method.to_owned(), action, times: None, for_ms });
        let seen = self.last(|| self.new_hits()).await;
        sim.clear_call_faults();
        seen
    }

    async fn hooks(&self, action: HookAction) -> u64 {
        let sim = &self.field.service.sim;
        sim.add_webhook_fault(HookFault { event: "*".to_owned(), action, times: None });
        let seen = self.last(|| self.new_hits()).await;
        sim.clear_webhook_faults();
        seen
    }

    async fn ffmpeg(&self, mode: &str) -> u64 {
        self.field.ffmpeg.be(mode);
        let failed = || self.lines(&["attempt failed", "capture failed", "poster", "well again"]);
        let seen = match self.fault {
            F::FfmpegMissing => self.last(failed).await,
            // now and then for all its attempts
            F::FfmpegCrashes if self.pick.is_multiple_of(2) => {
                tokio::time::sleep(Duration::from_millis(self.fault.lasts())).await;
                self.new_hits()
            }
            _ => self.last(|| self.new_hits()).await,
        };
        self.field.ffmpeg.be("real");
        seen
    }

    /// Every answer while it lasts is given under it.
    async fn clock(&self, shift: i64) -> u64 {
        let set = |shift: i64| std::fs::write(&self.field.clock, shift.to_string());
        let before = self.field.tally.answered();
        set(shift).expect("a file");
        self.last(|| (self.field.tally.answered() - before) as u64).await;
        let seen = self.field.tally.answered() - before;
        set(0).expect("a file");
        seen as u64
    }

    /// Everything recorded is old at once, while captures of it wait for an FFmpeg that hangs: their pins have to hold.
    async fn forward(&self) -> u64 {
        self.field.ffmpeg.be("hang");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let seen = self.clock(150_000).await;
        self.field.ffmpeg.be("real");
        seen
    }

    /// One that is asked something just now.
    async fn end_a_replica(&self) -> u64 {
        let count = self.field.replicas();
        let mut number = self.pick as usize % count;
        let began = Instant::now();
        while self.field.busy[number].load(Ordering::SeqCst) == 0 {
            if self.quiet.is_cancelled() || began.elapsed() > Duration::from_secs(3) {
                break;
            }
            tokio::task::yield_now().await;
            number = if began.elapsed() > Duration::from_secs(1) {
                (number + 1) % count
            } else {
                number
            };
        }
        let process = self.field.replica(number);
        if self.fault == F::Kill {
            process.kill().await
        } else {
            process.end().await
        }
        self.field.hear_webhooks();
        // the others are alone for a while
        tokio::time::sleep(Duration::from_millis(self.pick % 700)).await;
        process.start(None).await;
        self.field.hear_webhooks();
        self.answers()
    }

    /// A process that dies at a place by itself.
    async fn drill(&self, place: &str) -> u64 {
        let process = self.field.replica(self.pick as usize % self.field.replicas());
        process.end().await;
        let hear = || self.field.hear_webhooks();
        let died = process.tries_drill(place, Duration::from_secs(15), hear).await;
        process.start(None).await;
        self.field.hear_webhooks();
        u64::from(died)
    }

    /// A recording of somebody who believes that he is recorded.
    fn victim(&self) -> Option<EgressView> {
        let ledger = self.field.ledger();
        let known = |egress: &EgressView| {
            let mut running = ledger.sessions.iter().filter(|(_, told)| told.stopped == Known::No);
            running.any(|(id, _)| egress.directory.contains(id.as_str()))
        };
        let mut all = self.field.service.sim.egresses();
        all.retain(|egress| RUNNING.contains(&egress.status.as_str()) && !egress.dead);
        all.retain(known);
        let count = all.len().max(1);
        (!all.is_empty()).then(|| all.swap_remove(self.pick as usize % count))
    }

    /// One as soon as there is one, while people press.
    async fn some_victim(&self) -> Option<EgressView> {
        loop {
            let victim = self.victim();
            if victim.is_some() || self.quiet.is_cancelled() {
                return victim;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn hurt_egress(&self) -> u64 {
        let sim = &self.field.service.sim;
        let Some(egress) = self.some_victim().await else { return 0 };
        let id = &egress.egress_id;
        self.field.note_hurt(&egress.directory);
        match self.fault {
            F::HostDies => sim.kill_egress(id),
            F::EgressFails => sim.fail_egress(id, "Failed to write segment", 500),
            F::EgressAborts => sim.abort_egress(id),
            _ => sim.limit_egress(id),
        }
        .expect("an egress");
        1
    }

    /// Ends that never were: signed with a key that is not LiveKit's, and signed well for another body.
    async fn forge(&self) -> u64 {
        let sim = &self.field.service.sim;
        let Some(egress) = self.some_victim().await else { return 0 };
        let info = json!({
            "egressId": egress.egress_id, "roomName": egress.room, "status": "EGRESS_COMPLETE",
        });
        let id = format!("EV_forged{}", self.pick);
        let body = json!({ "event": "egress_ended", "id": id, "egressInfo": info }).to_string();
        let sign = |key: &str, secret: &str, body: &str| {
            let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(body));
            AccessToken::with_api_key(key, secret).with_sha256(&hash).to_jwt().expect("signed")
        };
        let (key, secret) = (sim.api_key(), sim.api_secret());
        let wrong = sign(key, "a-secret-that-is-not-livekits-own", &body);
        let tokens = [wrong, sign(key, secret, "another body")];
        let mut refused = 0;
        for process in self.field.processes() {
            for token in &tokens {
                let base = process.base().unwrap_or_default();
                let url = format!("{base}/webhooks/livekit");
                let request = reqwest::Client::new().post(url).body(body.clone());
                let request = request.header("content-type", "application/webhook+json");
                match request.header("authorization", token).send().await {
                    Ok(answer) if answer.status() == 401 => refused += 1,
                    Ok(answer) => {
                        self.field.wrong(format!("a forged webhook: {}", answer.status()))
                    }
                    Err(error) => self.field.wrong(format!("a forged webhook: {error}")),
                }
            }
        }
        let after = sim.egresses();
        let goes_on = after.iter().any(|one| one.egress_id == egress.egress_id);
        if goes_on { refused } else { 0 }
    }

    /// Again and again, until somebody noticed.
    async fn cut_connections(&self) -> u64 {
        let db = self.field.database().await;
        let cut = "SELECT COUNT(pg_terminate_backend(pid)) AS counted FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let end = Instant::now() + Duration::from_millis(self.fault.lasts() / 2);
        let noticed = || self.answers() + self.lines(&["database", "terminating connection"]);
        let mut cuts = 0;
        while Instant::now() < end && !(noticed() > 0 && cuts > 20) {
            cuts += counted(&db, cut).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        db.close().await.expect("closed");
        if cuts > 0 { noticed() } else { 0 }
    }

    /// Rows that everybody needs are held by somebody who takes his time.
    async fn hold_a_transaction(&self) -> u64 {
        let db = self.field.database().await;
        let begin: &[&str] = match self.field.cluster {
            Some(_) => &[
                "BEGIN",
                // in the order in which everybody takes them
                "SELECT 1 FROM job FOR UPDATE",
                "SELECT 1 FROM user_account FOR UPDATE",
                "SELECT 1 FROM community FOR UPDATE",
            ],
            None => &["BEGIN IMMEDIATE"],
        };
        for statement in begin {
            // whoever waits for us while we wait for him ends our transaction: the locks are gone then, and so is the fault
            if db.conn().execute_unprepared(statement).await.is_err() {
                db.conn().execute_unprepared("ROLLBACK").await.expect("over");
                db.close().await.expect("closed");
                return 0;
            }
        }
        let end = Instant::now() + Duration::from_millis(self.fault.lasts());
        while Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
        db.conn().execute_unprepared("COMMIT").await.expect("let go");
        db.close().await.expect("closed");
        // who waited is answered now
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (hurt, late) = self.hurt();
        (hurt + late) as u64
    }
}

#[derive(Debug, FromQueryResult)]
struct Counted {
    counted: i64,
}

async fn counted(db: &livekit_replay::store::Db, sql: &str) -> i64 {
    let statement = Statement::from_string(DatabaseBackend::Postgres, sql);
    let found = Counted::find_by_statement(statement).one(db.conn()).await;
    found.expect("an answer").expect("a row").counted
}
