//! A stream of events to one reader: what he missed, from rows, then what comes, from the hub. He gets every event of
//! his in order; where that cannot be promised any more he is told so (`reset`). He holds nothing but his own buffer:
//! who reads too slowly loses his stream, not events, as he can resume.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::{broadcast, mpsc},
    time::Instant,
};

use super::{Event, Seat, shown};
use crate::{
    access::{Caller, Permission},
    domain::id::{CommunityId, EventId},
    error::{Error, Result},
    flow::{Deps, admin, authorize},
    store::event::{self, Scope},
};

/// Pieces that wait for their reader.
const BUFFER: usize = 32;
/// How long a reader may take nothing while there is something.
const SLOW: Duration = Duration::from_secs(30);
/// Rows read at once.
const PAGE: u64 = 50;
/// Between two looks at whether the stream may go on.
const TICK: Duration = Duration::from_secs(1);
/// Looks between two questions for a manager's right.
const RIGHTS_EVERY: u32 = 2;
/// Looks between two signs of life.
const BEAT_EVERY: u32 = 15;
/// Where a reader is who was told nothing, in a database where nothing happened yet.
const BEGINNING: &str = "0";

/// Something a reader is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Where he is now, and how soon he may come again.
    Position(EventId),
    /// An event.
    Event {
        /// Its id.
        id: EventId,
        /// Its type.
        kind: &'static str,
        /// `{id, type, createdAt, data}`.
        body: Value,
    },
    /// Events may be missing between what he had and what follows: `{id, type, createdAt, data}`.
    Reset(Value),
    /// A sign of life.
    Beat,
    /// The stream ends because the service does; he may come again at once.
    Bye,
}

/// Opens a stream of the caller's events, or with `community` of what happens there to who manages it. `last` is the
/// id of the last event that he has.
///
/// # Errors
/// `permission_denied`, `validation_failed` for what is no id of an event, `rate_limited` and `overloaded` where too many
/// streams are open.
pub async fn open(
    deps: &Deps,
    caller: Caller,
    community: Option<CommunityId>,
    last: Option<&str>,
) -> Result<mpsc::Receiver<Piece>> {
    if community.is_some() {
        admin::require_manager(deps, &caller, community.as_ref()).await?;
    }
    let last = last.map(parse).transpose()?;
    let seat = deps.wake.events.seat(&caller.user_id)?;
    // first of all: what is told from now on is held, what was told before stands in rows
    let live = deps.wake.events.live.subscribe();
    let start = start(deps, last.as_ref()).await?;
    let (pieces, reader) = mpsc::channel(BUFFER);
    let scope = match &community {
        Some(community) => Scope::In(community.clone()),
        None => Scope::Of(caller.user_id.clone()),
    };
    let feed = Feed {
        deps: deps.clone(),
        caller,
        scope,
        at: start.seq,
        position: start.id.clone(),
        sent: start.id,
        pieces,
        _seat: seat,
    };
    deps.tasks.spawn(feed.run(start.reset, live));
    Ok(reader)
}

fn parse(text: &str) -> Result<EventId> {
    if text == BEGINNING || uuid::Uuid::try_parse(text).is_ok_and(|id| id.to_string() == text) {
        return Ok(EventId::new(text));
    }
    Err(Error::invalid_field("lastEventId", "is no id of an event"))
}

/// Where a stream begins.
struct Start {
    seq: i64,
    id: EventId,
    reset: bool,
}

async fn start(deps: &Deps, last: Option<&EventId>) -> Result<Start> {
    let conn = deps.db.conn();
    let head = event::head(conn).await?;
    let Some(last) = last else {
        // the event that he is told to be at is the one behind which he is told everything
        let (seq, id) = match event::find_newest(conn).await? {
            Some(newest) => (newest.seq.unwrap_or(head.seq), newest.id),
            None => (head.seq, EventId::new(BEGINNING)),
        };
        return Ok(Start { seq, id, reset: false });
    };
    let found = if last.as_str() == BEGINNING {
        Some(0)
    } else {
        event::find(conn, last).await?.and_then(|row| row.seq)
    };
    // nothing behind his place was deleted: exactly what he misses is there
    match found.filter(|seq| *seq >= head.deleted_through) {
        Some(seq) => Ok(Start { seq, id: last.clone(), reset: false }),
        None => Ok(Start { seq: head.deleted_through, id: last.clone(), reset: true }),
    }
}

struct Feed {
    deps: Deps,
    caller: Caller,
    scope: Scope,
    /// All events up to this place were sent, as far as they are his.
    at: i64,
    /// The event at that place.
    position: EventId,
    /// What he was last told of it.
    sent: EventId,
    pieces: mpsc::Sender<Piece>,
    _seat: Seat,
}

/// The stream is over.
struct Over;

type Going<T = ()> = std::result::Result<T, Over>;

impl Feed {
    async fn run(mut self, reset: bool, live: broadcast::Receiver<Arc<Event>>) {
        let stop = self.deps.stop.clone();
        let gone = self.pieces.clone();
        tokio::select! {
            _ = self.feed(reset, live) => {}
            () = gone.closed() => {}
            () = stop.cancelled() => {
                // if there is room: he comes again in any case
                let _ = gone.try_send(Piece::Bye);
            }
        }
    }

    async fn feed(&mut self, reset: bool, mut live: broadcast::Receiver<Arc<Event>>) -> Going {
        if reset {
            self.reset().await?;
        } else {
            self.send(Piece::Position(self.position.clone())).await?;
        }
        self.catch_up().await?;
        self.send_position().await?;
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            tokio::select! {
                event = live.recv() => match event {
                    // places are given without a gap: where there is one, this process did not hear of something
                    Ok(event) if event.seq.is_some_and(|seq| seq > self.at + 1) => {
                        self.catch_up().await?;
                    }
                    Ok(event) => self.tell(&event).await?,
                    // more came than is held: rows have it all
                    Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up().await?,
                    Err(broadcast::error::RecvError::Closed) => return Err(Over),
                },
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.check(ticks).await?;
                }
            }
        }
    }

    /// Whether the stream may go on; now and then a sign of life.
    async fn check(&mut self, ticks: u32) -> Going {
        let expires = self.caller.origin.expires_at;
        if expires.is_some_and(|at| at <= self.deps.clock.now()) {
            return Err(Over);
        }
        if ticks.is_multiple_of(RIGHTS_EVERY) {
            self.demand_right().await?;
        }
        if ticks.is_multiple_of(BEAT_EVERY) {
            self.send(Piece::Beat).await?;
            // nothing is awaited from this process alone
            self.catch_up().await?;
            // a reader of whom nothing happens keeps a place that is still known when he comes again
            if ticks.is_multiple_of(BEAT_EVERY * 4) {
                self.send_position().await?;
            }
        }
        Ok(())
    }

    /// A manager who is one no more gets nothing more. A database that does not answer ends the stream, too: better
    /// than showing somebody what he may not see.
    async fn demand_right(&self) -> Going {
        let Scope::In(community) = &self.scope else { return Ok(()) };
        let right = Permission::ManageReplayLimits;
        let may = authorize::allowed(&self.deps, &self.caller, right, Some(community)).await;
        if may.unwrap_or(false) { Ok(()) } else { Err(Over) }
    }

    /// Sends what rows hold behind his place.
    async fn catch_up(&mut self) -> Going {
        loop {
            // before the page: it holds all of his up to there
            let newest = self.read(event::find_newest(self.deps.db.conn()).await)?;
            let page = event::list_after(self.deps.db.conn(), &self.scope, self.at, PAGE).await;
            let page = self.read(page)?;
            // after the page: what was deleted before it was read may have been his
            let head = self.read(event::head(self.deps.db.conn()).await)?;
            if head.deleted_through > self.at {
                self.at = head.deleted_through;
                self.reset().await?;
                continue;
            }
            let full = u64::try_from(page.len()).is_ok_and(|count| count >= PAGE);
            for event in &page {
                self.tell(event).await?;
            }
            if !full {
                if let Some((seq, id)) = newest.and_then(|row| Some((row.seq?, row.id)))
                    && seq > self.at
                {
                    (self.at, self.position) = (seq, id);
                }
                return Ok(());
            }
        }
    }

    fn read<T>(&self, read: Result<T>) -> Going<T> {
        read.map_err(|error| {
            tracing::warn!(error = error.chain(), "a stream of events ends");
            Over
        })
    }

    /// Sends an event that comes next, if it is his.
    async fn tell(&mut self, event: &Event) -> Going {
        let Some(seq) = event.seq.filter(|seq| *seq > self.at) else { return Ok(()) };
        if self.scope.holds(event) {
            let shown = match &self.scope {
                Scope::In(_) => {
                    self.demand_right().await?;
                    shown::to_manager(&self.deps, &self.caller, event).await
                }
                _ => shown::to_owner(&self.deps, &self.caller, event).await.map(Some),
            };
            if let Some(body) = self.read(shown)? {
                let (id, kind) = (event.id.clone(), event.kind.as_str());
                self.sent = id.clone();
                self.send(Piece::Event { id, kind, body }).await?;
            }
        }
        (self.at, self.position) = (seq, event.id.clone());
        Ok(())
    }

    async fn reset(&mut self) -> Going {
        let now = self.deps.clock.now();
        let detail = "Events between the last one you had and those that follow may be missing; read \
                      sessions and clips anew.";
        let id = EventId::new(uuid::Uuid::new_v4().to_string());
        let body =
            json!({ "id": id, "type": "reset", "createdAt": now, "data": { "detail": detail } });
        self.send(Piece::Reset(body)).await
    }

    async fn send_position(&mut self) -> Going {
        if self.position == self.sent {
            return Ok(());
        }
        self.sent = self.position.clone();
        self.send(Piece::Position(self.position.clone())).await
    }

    async fn send(&mut self, piece: Piece) -> Going {
        match self.pieces.send_timeout(piece, SLOW).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Over),
        }
    }
}
