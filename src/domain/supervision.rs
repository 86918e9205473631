//! What a running session needs next: a function of its rows, of what is known of the share, and of the moment.
//!
//! It never trusts one source. LiveKit may call a dead egress active for ever, so silence on disk decides; a share
//! may vanish and come back, so the place is kept for a while; planned changes start the new egress before the old
//! one stops, so no picture is lost between them.

use std::time::Duration;

use super::{
    id::TrackId,
    lifecycle::{EndReason, SessionStatus},
    time::Timestamp,
};

/// An epoch as far as its supervision is concerned. Only epochs that are not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEpoch {
    /// 1, 2, …
    pub number: i32,
    /// The share it records.
    pub video: TrackId,
    /// Whether it records audio.
    pub has_audio: bool,
    /// When StartEgress was sent.
    pub sent_at: Timestamp,
    /// When LiveKit said yes.
    pub answered_at: Option<Timestamp>,
    /// Whether its egress is known by name: from the answer, or because LiveKit speaks of one under its path.
    pub egress_known: bool,
    /// Unanswered after this: failed.
    pub deadline_at: Timestamp,
    /// When its newest segment came.
    pub last_segment_at: Option<Timestamp>,
    /// Where its newest usable segment ends, screen time; only known when the room was asked, too.
    pub media_end: Option<Timestamp>,
    /// When it was told to stop.
    pub stop_sent_at: Option<Timestamp>,
}

/// What is known of the user's share in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// Not asked.
    Unknown,
    /// The room is gone.
    RoomGone,
    /// The user shares nothing there.
    Absent,
    /// This.
    Present {
        /// The newest screen share.
        video: TrackId,
        /// Whether it has audio.
        has_audio: bool,
    },
}

/// A session as far as its supervision is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Where it stands.
    pub status: SessionStatus,
    /// Its epochs that are not over, by number.
    pub open: Vec<OpenEpoch>,
    /// The newest epoch that was begun, over or not.
    pub current_epoch: i32,
    /// What that one was to record.
    pub wanted: Option<TrackId>,
    /// Whether LiveKit ever accepted a recording of it: only then was its user told that it runs.
    pub accepted: bool,
    /// Since when no share is seen.
    pub share_lost_at: Option<Timestamp>,
    /// Failed replacements in a row.
    pub restart_attempts: i32,
    /// Not before then the next one.
    pub restart_at: Option<Timestamp>,
    /// Whether the last epoch to end hit a limit of the egress service.
    pub last_hit_limit: bool,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// An egress without a new segment for this long is dead.
    pub no_segment: Duration,
    /// A share may be away for this long.
    pub rejoin: Duration,
    /// An epoch is rolled over after this long.
    pub max_epoch: Duration,
    /// An egress told to stop may flush for this long.
    pub flush: Duration,
}

/// Replacements in a row that brought no segment before the session is given up.
pub const MAX_RESTARTS: i32 = 10;

/// Outcome of an epoch of which nothing came for too long.
const DEAD: &str = "dead";
/// Outcome of an epoch that LiveKit did not answer for, and of which nothing came.
const START_FAILED: &str = "start_failed";
/// An egress that brings media and did not answer is named by LiveKit with the next `reconcile`, or the next but one, unless
/// it has forgotten it.
const TO_BE_NAMED: Duration = Duration::from_secs(150);
/// A share that was not there twice, this far apart, is not coming back as the same track. Most egresses have ended by
/// themselves by then.
const SURELY_GONE: Duration = Duration::from_secs(2);

/// A recording's media that is this much newer than its arrival was placed by a clock that has been set back since;
/// two replicas' clocks may differ by less.
const FROM_THE_FUTURE_US: i64 = 5_000_000;
/// Media that arrives this much after it was on the screen, and has for a minute, was placed by a clock that has been
/// set forward since; a busy egress lags by a few seconds.
const LONG_AGO_US: i64 = 60_000_000;
const FOR_A_MINUTE: Duration = Duration::from_secs(60);

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tell its egress to stop (again); it may still flush.
    StopEgress(i32),
    /// Nothing more will come of it.
    EndEpoch {
        /// Which.
        number: i32,
        /// Why, as kept in the row.
        outcome: &'static str,
    },
    /// LiveKit's answer got lost with whoever waited for it, but its egress is known and brings media: it counts as
    /// accepted.
    Adopt(i32),
    /// Ask LiveKit what the user shares, then plan again.
    LookAtRoom,
    /// Start the next egress.
    StartEpoch,
    /// What the newest epoch records is what the user shares after all.
    Keep,
    /// The share is gone for the moment.
    ShareLost,
    /// The share is (still, again) there.
    ShareBack,
    /// Media arrives.
    Activate,
    /// The newest epoch works: replacements that failed before are forgotten.
    Settle,
    /// Media does not arrive.
    Degrade,
    /// The session is over.
    End(EndReason),
    /// A stopping session's last epoch is over.
    Finish,
}

impl Step {
    /// Whether this is concluded from nothing having come, as far as rows know. A first start that nobody was told of
    /// fails whatever has come of it.
    pub fn is_silence(&self, status: SessionStatus) -> bool {
        match self {
            Step::EndEpoch { outcome, .. } if *outcome == DEAD => true,
            Step::EndEpoch { outcome, .. } if *outcome == START_FAILED => {
                status != SessionStatus::Starting
            }
            _ => false,
        }
    }
}

/// What to do now, in order.
pub fn plan(session: &Watched, share: &Share, patience: &Patience, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    let alive = sort_out_epochs(session, patience, now, &mut steps);
    if session.status == SessionStatus::Stopping {
        if alive.is_empty() {
            steps.push(Step::Finish);
        }
        return steps;
    }
    if !session.status.holds_place() {
        return steps;
    }
    if session.status == SessionStatus::Starting && alive.is_empty() && !session.accepted {
        // nobody was told that this session runs: whoever asked for it died or gave up
        steps.push(Step::End(EndReason::StartFailed));
        return steps;
    }
    let newest = alive.last().copied();
    match share {
        Share::Unknown => {
            // what is recorded is not what was to be: another track's recording did not come about
            let other = newest.is_none_or(|epoch| {
                session.wanted.as_ref().is_some_and(|wanted| *wanted != epoch.video)
            });
            if newest.is_some_and(|newest| began_after_the_loss(session, newest)) {
                steps.push(Step::ShareBack);
            } else if other || session.share_lost_at.is_some() {
                steps.push(Step::LookAtRoom);
            }
        }
        Share::RoomGone | Share::Absent => {
            plan_without_share(session, share, &alive, patience, now, &mut steps)
        }
        Share::Present { video, has_audio } => {
            plan_with_share(session, newest, (video, *has_audio), patience, now, &mut steps);
        }
    }
    plan_status(session, &alive, share, patience, now, &mut steps);
    // LiveKit's answer is not waited for: what it tells has to find the session as it is
    steps.sort_by_key(|step| *step == Step::StartEpoch);
    steps
}

/// Whether the newest epoch brings media of a share that came after the one that was lost.
fn began_after_the_loss(session: &Watched, newest: &OpenEpoch) -> bool {
    let is_newest = newest.number == session.current_epoch && newest.answered_at.is_some();
    let later = session.share_lost_at.is_some_and(|lost| newest.sent_at >= lost);
    is_newest && later && newest.last_segment_at.is_some()
}

/// Ends epochs that are dead or done, stops those that a newer one has replaced; answers the rest.
fn sort_out_epochs<'a>(
    session: &'a Watched,
    patience: &Patience,
    now: Timestamp,
    steps: &mut Vec<Step>,
) -> Vec<&'a OpenEpoch> {
    let stopping = session.status == SessionStatus::Stopping || !session.status.holds_place();
    let newest_with_media = session.open.iter().rev().find(|epoch| epoch.last_segment_at.is_some());
    let mut alive = Vec::new();
    for epoch in &session.open {
        let replaced = newest_with_media.is_some_and(|newest| newest.number > epoch.number);
        if let Some(outcome) = over(session.status, epoch, patience, now) {
            steps.push(Step::StopEgress(epoch.number));
            steps.push(Step::EndEpoch { number: epoch.number, outcome });
        } else if stopping || replaced {
            if epoch.answered_at.is_some()
                && epoch.stop_sent_at.is_none_or(|sent| is_time_again(now.since(sent)))
            {
                steps.push(Step::StopEgress(epoch.number));
            }
            if stopping {
                alive.push(epoch);
            }
        } else {
            alive.push(epoch);
        }
        if is_accepted_unheard(session.status, epoch) {
            steps.push(Step::Adopt(epoch.number));
        }
    }
    alive
}

/// A stop that brought nothing is said again: in every fifth second, not with every look in between.
fn is_time_again(since_the_first: Duration) -> bool {
    let seconds = since_the_first.as_secs();
    seconds >= 5 && seconds.is_multiple_of(5)
}

/// Whether LiveKit must have accepted an epoch although nobody wrote its answer down.
fn is_accepted_unheard(status: SessionStatus, epoch: &OpenEpoch) -> bool {
    let proven = epoch.egress_known && epoch.last_segment_at.is_some();
    status != SessionStatus::Starting && epoch.answered_at.is_none() && proven
}

/// Why nothing more will come of an epoch, by our own clock alone.
fn over(
    status: SessionStatus,
    epoch: &OpenEpoch,
    patience: &Patience,
    now: Timestamp,
) -> Option<&'static str> {
    let Some(answered_at) = epoch.answered_at else {
        let comes = epoch.last_segment_at.is_some_and(|at| now.since(at) <= patience.no_segment);
        let named = now <= epoch.deadline_at.plus(TO_BE_NAMED);
        let goes_on = comes && named && status != SessionStatus::Starting;
        return (now > epoch.deadline_at && !goes_on).then_some(START_FAILED);
    };
    let sign_of_life = epoch.last_segment_at.map_or(answered_at, |at| at.max(answered_at));
    match epoch.stop_sent_at {
        Some(sent) => (now.since(sent.max(sign_of_life)) > patience.flush).then_some("stopped"),
        None => (now.since(sign_of_life) > patience.no_segment).then_some(DEAD),
    }
}

/// An egress whose picture is gone while its sound goes on closes no segment any more and stays active (measured):
/// what it holds of the last seconds only comes when it is stopped. A picture that comes back is a new track.
fn plan_without_share(
    session: &Watched,
    share: &Share,
    alive: &[&OpenEpoch],
    patience: &Patience,
    now: Timestamp,
    steps: &mut Vec<Step>,
) {
    match session.share_lost_at {
        None => steps.push(Step::ShareLost),
        Some(lost) if now.since(lost) >= patience.rejoin => {
            steps.push(Step::End(match share {
                Share::RoomGone => EndReason::RoomFinished,
                _ => EndReason::ShareEnded,
            }));
        }
        Some(lost) if now.since(lost) >= SURELY_GONE => {
            let stuck = alive.iter().filter(|epoch| epoch.stop_sent_at.is_none());
            let known = stuck.filter(|epoch| epoch.answered_at.is_some());
            steps.extend(known.map(|epoch| Step::StopEgress(epoch.number)));
        }
        Some(_) => {}
    }
}

fn plan_with_share(
    session: &Watched,
    newest: Option<&OpenEpoch>,
    (video, has_audio): (&TrackId, bool),
    patience: &Patience,
    now: Timestamp,
    steps: &mut Vec<Step>,
) {
    let may_start = session.restart_at.is_none_or(|at| now >= at);
    let republished = newest.is_some_and(|newest| newest.video != *video);
    // a new track is back when it is recorded; what cannot be yet is as good as away, and asked for again every time
    let answered = newest.is_some_and(|newest| newest.answered_at.is_some());
    match (session.share_lost_at, republished) {
        (Some(_), false) => steps.push(Step::ShareBack),
        // again: how long it may be away counts from now
        (Some(_), true) => steps.push(Step::ShareLost),
        (None, true) if !(may_start && answered) => steps.push(Step::ShareLost),
        (None, _) => {}
    }
    let Some(newest) = newest else {
        if session.restart_attempts >= MAX_RESTARTS {
            steps.push(Step::End(if session.last_hit_limit {
                EndReason::LimitReached
            } else {
                EndReason::EgressFailed
            }));
        } else if may_start {
            steps.push(Step::StartEpoch);
        }
        return;
    };
    if !republished && session.wanted.as_ref().is_some_and(|wanted| wanted != video) {
        steps.push(Step::Keep);
    }
    // A change is planned only over an egress that works: one change at a time.
    let works = newest.answered_at.is_some() && newest.last_segment_at.is_some();
    let audio_came = has_audio && !newest.has_audio;
    let too_old = now.since(newest.sent_at) >= patience.max_epoch;
    let other_clock = is_of_another_clock(newest, now);
    let wanted = (republished && newest.answered_at.is_some())
        || (works && (audio_came || too_old || other_clock));
    if wanted && may_start {
        steps.push(Step::StartEpoch);
    }
}

/// Whether our clock was set forward or back since the epoch's was fixed by it: what it records is not found under the
/// present moment any more. The next epoch's clock is fixed anew.
fn is_of_another_clock(epoch: &OpenEpoch, now: Timestamp) -> bool {
    let (Some(arrived), Some(end)) = (epoch.last_segment_at, epoch.media_end) else { return false };
    let late = arrived.micros_since(end);
    let lags = late > LONG_AGO_US && now.since(epoch.sent_at) >= FOR_A_MINUTE;
    late < -FROM_THE_FUTURE_US || lags
}

fn plan_status(
    session: &Watched,
    alive: &[&OpenEpoch],
    share: &Share,
    patience: &Patience,
    now: Timestamp,
    steps: &mut Vec<Step>,
) {
    let newest = alive.last().copied();
    let is_fresh = |epoch: &OpenEpoch| {
        epoch.last_segment_at.is_some_and(|at| now.since(at) <= patience.no_segment)
    };
    let lost = match share {
        Share::Unknown => session.share_lost_at.is_some() && !steps.contains(&Step::ShareBack),
        Share::RoomGone | Share::Absent => true,
        Share::Present { .. } => steps.contains(&Step::ShareLost),
    };
    let records_it = match share {
        Share::Present { video, .. } => newest.is_some_and(|epoch| epoch.video == *video),
        _ => true,
    };
    // media of what is being replaced says nothing of the next; the replacement is told once: either when LiveKit
    // accepts it while the session is active, or when an accepted one brings media to a degraded session
    let fresh = newest.is_some_and(is_fresh) && records_it && !steps.contains(&Step::StartEpoch);
    let answered = newest.is_some_and(|epoch| epoch.answered_at.is_some());
    let nothing_comes = !answered && !alive.iter().any(|epoch| is_fresh(epoch));
    match session.status {
        SessionStatus::Starting if fresh && !lost => steps.push(Step::Activate),
        SessionStatus::Degraded if fresh && answered && !lost => steps.push(Step::Activate),
        SessionStatus::Active if newest.is_none() || lost || nothing_comes => {
            steps.push(Step::Degrade);
        }
        SessionStatus::Starting if newest.is_none() && session.restart_attempts > 0 => {
            steps.push(Step::Degrade);
        }
        _ => {}
    }
    // a change counts as an attempt until it brings media, and not for good
    let is_newest = newest.is_some_and(|epoch| epoch.number == session.current_epoch);
    if fresh && answered && is_newest && session.restart_attempts > 0 {
        steps.push(Step::Settle);
    }
}

/// What the attempts count with one more. Another track is no failure of the last one's; and what is tried while another
/// egress still records never uses up what is left for the day when that one dies.
pub fn attempts_with(before: i32, same_track: bool, over_a_recording: bool) -> i32 {
    let next = if same_track { before.saturating_add(1) } else { 1 };
    if over_a_recording { next.min(LONGEST_PAUSE) } else { next }
}

/// From this attempt on the pauses grow no more.
const LONGEST_PAUSE: i32 = 6;

/// How long to wait before the next replacement: 1, 2, 4, 8, 16, then 30 s.
pub fn back_off(attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts.clamp(1, LONGEST_PAUSE)).unwrap_or(1) - 1;
    Duration::from_secs((1u64 << exponent).min(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        no_segment: Duration::from_secs(21),
        rejoin: Duration::from_secs(20),
        max_epoch: Duration::from_secs(3600),
        flush: Duration::from_secs(20),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn epoch(number: i32) -> OpenEpoch {
        OpenEpoch {
            number,
            video: TrackId::new("TR_v"),
            has_audio: true,
            sent_at: at(0),
            answered_at: Some(at(1)),
            egress_known: true,
            deadline_at: at(65),
            last_segment_at: Some(at(100)),
            media_end: None,
            stop_sent_at: None,
        }
    }

    fn active(open: Vec<OpenEpoch>) -> Watched {
        Watched {
            status: SessionStatus::Active,
            current_epoch: open.last().map_or(1, |epoch| epoch.number),
            wanted: Some(open.last().map_or(TrackId::new("TR_v"), |epoch| epoch.video.clone())),
            open,
            accepted: true,
            share_lost_at: None,
            restart_attempts: 0,
            restart_at: None,
            last_hit_limit: false,
        }
    }

    fn share(video: &str) -> Share {
        Share::Present { video: TrackId::new(video), has_audio: true }
    }

    #[test]
    fn a_healthy_session_needs_nothing() {
        assert_eq!(plan(&active(vec![epoch(1)]), &Share::Unknown, &PATIENCE, at(110)), vec![]);
    }

    #[test]
    fn silence_on_disk_is_death_whatever_livekit_says_and_the_room_is_asked() {
        let steps = plan(&active(vec![epoch(1)]), &Share::Unknown, &PATIENCE, at(122));
        assert_eq!(
            steps,
            vec![
                Step::StopEgress(1),
                Step::EndEpoch { number: 1, outcome: "dead" },
                Step::LookAtRoom,
                Step::Degrade
            ]
        );
    }

    #[test]
    fn a_dead_egress_is_replaced_while_the_share_goes_on() {
        let steps = plan(&active(vec![]), &share("TR_v"), &PATIENCE, at(122));
        assert!(steps.contains(&Step::StartEpoch), "{steps:?}");
        let waiting = Watched { restart_at: Some(at(130)), ..active(vec![]) };
        assert!(!plan(&waiting, &share("TR_v"), &PATIENCE, at(122)).contains(&Step::StartEpoch));
    }

    #[test]
    fn a_planned_change_that_brought_media_is_no_failed_attempt() {
        let changed = Watched { restart_attempts: 1, ..active(vec![epoch(1), epoch(2)]) };
        let steps = plan(&changed, &Share::Unknown, &PATIENCE, at(110));
        assert_eq!(steps, [Step::StopEgress(1), Step::Settle]);
        let silent = OpenEpoch { last_segment_at: None, answered_at: Some(at(105)), ..epoch(2) };
        let waits = Watched { restart_attempts: 1, ..active(vec![epoch(1), silent]) };
        assert_eq!(plan(&waits, &Share::Unknown, &PATIENCE, at(110)), []);
    }

    #[test]
    fn a_lost_share_keeps_its_place_for_the_rejoin_time_and_then_ends() {
        let lost = Watched { share_lost_at: Some(at(100)), ..active(vec![]) };
        let soon = plan(&lost, &Share::Absent, &PATIENCE, at(119));
        assert!(!soon.iter().any(|step| matches!(step, Step::End(_))), "{soon:?}");
        let late = plan(&lost, &Share::Absent, &PATIENCE, at(120));
        assert!(late.contains(&Step::End(EndReason::ShareEnded)), "{late:?}");
        let gone = plan(&lost, &Share::RoomGone, &PATIENCE, at(120));
        assert!(gone.contains(&Step::End(EndReason::RoomFinished)), "{gone:?}");
    }

    #[test]
    fn an_egress_that_outlives_its_share_is_stopped_once_so_that_its_tail_comes_out() {
        let stops = |session: &Watched, share: &Share, now| {
            let steps = plan(session, share, &PATIENCE, at(now));
            steps.into_iter().filter(|step| matches!(step, Step::StopEgress(_))).count()
        };
        let mut lost = Watched { share_lost_at: Some(at(100)), ..active(vec![epoch(1)]) };
        assert_eq!(stops(&lost, &Share::Absent, 101), 0);
        assert_eq!(stops(&lost, &Share::Absent, 102), 1);
        assert_eq!(stops(&lost, &share("TR_v"), 102), 0, "it is back");
        assert_eq!(stops(&lost, &Share::Unknown, 102), 0, "silence says nothing");
        lost.open[0].stop_sent_at = Some(at(102));
        assert_eq!(stops(&lost, &Share::Absent, 110), 0);
    }

    #[test]
    fn a_republished_share_is_the_next_epoch_and_the_old_one_stops_only_when_the_new_one_has_media()
    {
        let steps = plan(&active(vec![epoch(1)]), &share("TR_new"), &PATIENCE, at(101));
        assert_eq!(steps, vec![Step::StartEpoch]);
        let mut new = epoch(2);
        new.answered_at = Some(at(101));
        new.video = TrackId::new("TR_new");
        new.last_segment_at = None;
        let both = active(vec![epoch(1), new.clone()]);
        assert_eq!(plan(&both, &share("TR_new"), &PATIENCE, at(102)), vec![]);
        new.last_segment_at = Some(at(104));
        let both = active(vec![epoch(1), new]);
        assert_eq!(plan(&both, &share("TR_new"), &PATIENCE, at(105)), vec![Step::StopEgress(1)]);
    }

    #[test]
    fn a_share_that_came_back_as_another_track_is_back_when_its_own_recording_brings_media() {
        let lost = Watched {
            status: SessionStatus::Degraded,
            share_lost_at: Some(at(105)),
            ..active(vec![epoch(1)])
        };
        let steps = plan(&lost, &share("TR_new"), &PATIENCE, at(106));
        assert_eq!(steps, [Step::ShareLost, Step::StartEpoch], "the old one's media are no sign");
        let next = |answered, media| OpenEpoch {
            video: TrackId::new("TR_new"),
            answered_at: answered,
            last_segment_at: media,
            ..epoch(2)
        };
        let known =
            |second| Watched { status: SessionStatus::Degraded, ..active(vec![epoch(1), second]) };
        let activates = |second| {
            plan(&known(second), &Share::Unknown, &PATIENCE, at(110)).contains(&Step::Activate)
        };
        assert!(!activates(next(Some(at(107)), None)));
        assert!(!activates(next(None, Some(at(108)))), "nobody was told that it was accepted");
        assert!(activates(next(Some(at(107)), Some(at(108)))));
    }

    #[test]
    fn a_new_track_that_cannot_be_recorded_yet_is_looked_for_again() {
        let paused = Watched { restart_at: Some(at(112)), ..active(vec![epoch(1)]) };
        let steps = plan(&paused, &share("TR_new"), &PATIENCE, at(110));
        assert_eq!(steps, [Step::ShareLost, Step::Degrade]);
        let lost = Watched { share_lost_at: Some(at(110)), ..paused };
        assert_eq!(
            plan(&lost, &share("TR_new"), &PATIENCE, at(111)),
            [Step::ShareLost, Step::Degrade],
            "it is there: how long it may be away counts from now"
        );
        let asks = plan(&lost, &Share::Unknown, &PATIENCE, at(111));
        assert_eq!(asks, [Step::LookAtRoom, Step::Degrade]);
        let steps = plan(&lost, &share("TR_new"), &PATIENCE, at(112));
        assert_eq!(steps, [Step::ShareLost, Step::Degrade, Step::StartEpoch]);
        // refused: nobody forgets that another track is to be recorded, and media of the old one settle nothing
        let refused = Watched {
            current_epoch: 2,
            wanted: Some(TrackId::new("TR_new")),
            restart_attempts: 1,
            ..active(vec![epoch(1)])
        };
        assert_eq!(plan(&refused, &Share::Unknown, &PATIENCE, at(113)), [Step::LookAtRoom]);
    }

    #[test]
    fn audio_that_came_late_and_old_age_are_planned_changes() {
        let mut silent = epoch(1);
        silent.has_audio = false;
        assert_eq!(
            plan(&active(vec![silent]), &share("TR_v"), &PATIENCE, at(101)),
            vec![Step::StartEpoch]
        );
        let mut old = epoch(1);
        old.last_segment_at = Some(at(3599));
        assert_eq!(
            plan(&active(vec![old]), &share("TR_v"), &PATIENCE, at(3600)),
            vec![Step::StartEpoch]
        );
    }

    #[test]
    fn a_clock_that_was_set_is_a_planned_change() {
        let recorded = |arrived: i64, end: i64| {
            let epoch = OpenEpoch {
                last_segment_at: Some(at(arrived)),
                media_end: Some(at(end)),
                ..epoch(1)
            };
            plan(&active(vec![epoch]), &share("TR_v"), &PATIENCE, at(arrived + 1))
        };
        assert_eq!(recorded(100, 96), vec![], "as ever");
        assert_eq!(recorded(100, 104), vec![], "another replica's clock");
        assert_eq!(recorded(100, 60), vec![], "a busy egress");
        assert_eq!(recorded(100, 190), vec![Step::StartEpoch], "set back");
        assert_eq!(recorded(200, 110), vec![Step::StartEpoch], "set forward");
        assert_eq!(recorded(40, -30), vec![], "at the beginning much may be late");
    }

    #[test]
    fn a_stopping_session_repeats_the_stop_and_finishes_when_nothing_is_open() {
        let mut stopping = active(vec![epoch(1)]);
        stopping.status = SessionStatus::Stopping;
        assert_eq!(plan(&stopping, &Share::Unknown, &PATIENCE, at(101)), vec![Step::StopEgress(1)]);
        stopping.open[0].stop_sent_at = Some(at(101));
        assert_eq!(plan(&stopping, &Share::Unknown, &PATIENCE, at(103)), vec![]);
        assert_eq!(plan(&stopping, &Share::Unknown, &PATIENCE, at(106)), vec![Step::StopEgress(1)]);
        stopping.open[0].stop_sent_at = Some(at(101));
        let late = plan(&stopping, &Share::Unknown, &PATIENCE, at(130));
        assert_eq!(late.last(), Some(&Step::Finish), "{late:?}");
    }

    #[test]
    fn an_unanswered_start_fails_after_its_deadline() {
        let mut unanswered = epoch(1);
        unanswered.answered_at = None;
        unanswered.last_segment_at = None;
        let steps = plan(&active(vec![unanswered]), &Share::Unknown, &PATIENCE, at(66));
        assert_eq!(steps[1], Step::EndEpoch { number: 1, outcome: "start_failed" });
    }

    #[test]
    fn an_epoch_begun_after_the_loss_that_brings_media_brings_the_share_back_unasked() {
        let back = OpenEpoch { sent_at: at(105), ..epoch(2) };
        let lost = |open| Watched {
            status: SessionStatus::Degraded,
            share_lost_at: Some(at(104)),
            ..active(open)
        };
        let of = |open| plan(&lost(open), &Share::Unknown, &PATIENCE, at(110));
        assert_eq!(of(vec![back.clone()]), [Step::ShareBack, Step::Activate]);
        // the tail of the one that was lost says nothing
        assert_eq!(of(vec![epoch(2)]), [Step::LookAtRoom]);
        let silent = OpenEpoch { answered_at: Some(at(106)), last_segment_at: None, ..back };
        assert_eq!(of(vec![silent]), [Step::LookAtRoom]);
    }

    #[test]
    fn who_shares_again_what_is_recorded_is_not_looked_at_for_ever() {
        let other = Watched { wanted: Some(TrackId::new("TR_gone")), ..active(vec![epoch(1)]) };
        assert_eq!(plan(&other, &Share::Unknown, &PATIENCE, at(110)), [Step::LookAtRoom]);
        assert_eq!(plan(&other, &share("TR_v"), &PATIENCE, at(110)), [Step::Keep]);
        let unknown = Watched { wanted: None, ..active(vec![epoch(1)]) };
        assert_eq!(plan(&unknown, &Share::Unknown, &PATIENCE, at(110)), []);
        assert_eq!(
            plan(&Watched { wanted: None, ..active(vec![]) }, &Share::Unknown, &PATIENCE, at(110)),
            [Step::LookAtRoom, Step::Degrade]
        );
    }

    #[test]
    fn a_session_whose_last_recording_died_while_the_next_did_not_answer_is_degraded() {
        let silent = OpenEpoch { answered_at: None, last_segment_at: None, ..epoch(2) };
        let alone = active(vec![OpenEpoch { deadline_at: at(165), ..silent.clone() }]);
        assert_eq!(plan(&alone, &Share::Unknown, &PATIENCE, at(110)), [Step::Degrade]);
        let both = active(vec![epoch(1), OpenEpoch { deadline_at: at(165), ..silent }]);
        assert_eq!(plan(&both, &Share::Unknown, &PATIENCE, at(110)), []);
    }

    #[test]
    fn other_tracks_are_no_failures_and_a_recording_that_runs_keeps_some_attempts_in_hand() {
        assert_eq!(attempts_with(3, true, false), 4);
        assert_eq!(attempts_with(9, false, false), 1);
        assert_eq!(attempts_with(6, true, true), 6);
        assert!(attempts_with(i32::MAX, true, true) < MAX_RESTARTS);
    }

    #[test]
    fn an_unanswered_start_that_brings_media_goes_on_and_is_adopted_once_its_egress_is_known() {
        let unheard = OpenEpoch { answered_at: None, egress_known: false, ..epoch(2) };
        let going_on = |session: Watched| plan(&session, &Share::Unknown, &PATIENCE, at(110));
        assert_eq!(going_on(active(vec![unheard.clone()])), [], "past its deadline");
        let known = OpenEpoch { egress_known: true, ..unheard.clone() };
        assert_eq!(going_on(active(vec![known.clone()])), [Step::Adopt(2)]);
        let stopping = Watched { status: SessionStatus::Stopping, ..active(vec![known.clone()]) };
        assert_eq!(going_on(stopping), [Step::Adopt(2)], "to be stopped then");
        // media that came long ago prove that it began, not that it goes on
        let steps = plan(&active(vec![unheard]), &Share::Unknown, &PATIENCE, at(122));
        let silence = Step::EndEpoch { number: 2, outcome: "start_failed" };
        assert!(steps.contains(&silence) && silence.is_silence(SessionStatus::Active), "{steps:?}");
        // a first start that nobody was told of is nobody's
        let starting = Watched {
            status: SessionStatus::Starting,
            accepted: false,
            ..active(vec![OpenEpoch { number: 1, ..known }])
        };
        let steps = going_on(starting);
        assert!(
            steps.contains(&Step::EndEpoch { number: 1, outcome: "start_failed" }),
            "{steps:?}"
        );
        assert!(steps.contains(&Step::End(EndReason::StartFailed)), "{steps:?}");
    }

    #[test]
    fn a_first_start_that_nobody_answered_for_fails_the_session() {
        let mut unanswered = epoch(1);
        unanswered.answered_at = None;
        unanswered.last_segment_at = None;
        let mut starting = active(vec![unanswered]);
        starting.accepted = false;
        starting.status = SessionStatus::Starting;
        let steps = plan(&starting, &share("TR_v"), &PATIENCE, at(66));
        assert_eq!(steps.last(), Some(&Step::End(EndReason::StartFailed)), "{steps:?}");
        assert!(!steps.contains(&Step::StartEpoch));
        // whoever gave it up died before he could give its place back
        starting.open.clear();
        let steps = plan(&starting, &share("TR_v"), &PATIENCE, at(1));
        assert_eq!(steps, [Step::End(EndReason::StartFailed)]);
        starting.accepted = true;
        let steps = plan(&starting, &share("TR_v"), &PATIENCE, at(1));
        assert!(steps.contains(&Step::StartEpoch), "{steps:?}");
    }

    #[test]
    fn replacements_are_given_up_after_ten_in_a_row() {
        let tired = Watched { restart_attempts: MAX_RESTARTS, ..active(vec![]) };
        let steps = plan(&tired, &share("TR_v"), &PATIENCE, at(10));
        assert!(steps.contains(&Step::End(EndReason::EgressFailed)), "{steps:?}");
        assert_eq!(back_off(1), Duration::from_secs(1));
        assert_eq!(back_off(9), Duration::from_secs(30));
    }
}
