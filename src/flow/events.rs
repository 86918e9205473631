//! Telling what the outbox holds. One loop per process gives new events their places and hands them to the streams
//! open here ([`stream`]) and, as rows, to the endpoints of the app ([`webhooks`]).
//!
//! The place is given after the commit of what happened (`store::event`), by whichever replica is first, so an event is
//! told even if the process that wrote it is gone.

pub mod operate;
mod shown;
pub mod stream;
pub mod ticket;
pub mod webhooks;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::{Notify, broadcast};

use super::Deps;
use crate::{
    domain::{event::KEPT, id::UserId},
    error::{Code, Error, Result},
    store::{
        self,
        delivery::{self, DeliveryState},
        event::{self, Scope},
        ticket as tickets,
    },
};

pub use crate::store::event::Model as Event;

/// How often is looked for what other replicas wrote down or numbered.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Events numbered, or read, in one go.
const BATCH: u64 = 200;
/// Events held for streams of this process that are a little behind; who is further behind reads rows.
const HELD: usize = 512;
/// Streams of one user in this process.
const STREAMS_OF_ONE: usize = 8;
/// Streams in this process at most, however many descriptors it may have.
const STREAMS: u64 = 2000;
/// Old events deleted in one transaction, and transactions in one pass.
const SWEEP: (u64, u32) = (1000, 20);
/// How long a delivery that was taken is listed.
const DELIVERED_SECONDS: i64 = 86_400;
/// How long one that is dead can be made to begin again; and how long one may wait for an endpoint nobody knows.
const DEAD_SECONDS: i64 = 7 * 86_400;

/// Who listens in this process, and the bells of those who tell.
#[derive(Debug)]
pub struct Hub {
    /// Something was written down.
    written: Notify,
    /// Something is to be delivered.
    deliveries: Notify,
    live: broadcast::Sender<Arc<Event>>,
    streams: Arc<Mutex<HashMap<UserId, usize>>>,
}

impl Default for Hub {
    fn default() -> Hub {
        Hub {
            written: Notify::new(),
            deliveries: Notify::new(),
            live: broadcast::Sender::new(HELD),
            streams: Arc::default(),
        }
    }
}

impl Hub {
    /// Something was written down and committed.
    pub(super) fn ring(&self) {
        self.written.notify_one();
    }

    /// A stream's seat.
    fn seat(&self, user: &UserId) -> Result<Seat> {
        let mut streams = taken(&self.streams);
        if streams.values().sum::<usize>() >= most_streams() {
            return Err(Error::new(Code::Overloaded, "Too many streams are open; try again.")
                .retry_after(Duration::from_secs(5)));
        }
        let own = streams.entry(user.clone()).or_default();
        if *own >= STREAMS_OF_ONE {
            let detail = format!("You have {STREAMS_OF_ONE} streams open already.");
            return Err(Error::new(Code::RateLimited, detail).retry_after(Duration::from_secs(10)));
        }
        *own += 1;
        metrics::gauge!("livekit_replay_event_streams").increment(1);
        Ok(Seat { user: user.clone(), streams: Arc::clone(&self.streams) })
    }
}

/// Streams that this process takes: half of the connections that it serves, so that they leave room for requests.
fn most_streams() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = files.map_or(STREAMS, |files| files / 4).clamp(32, STREAMS);
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn taken(streams: &Mutex<HashMap<UserId, usize>>) -> MutexGuard<'_, HashMap<UserId, usize>> {
    streams.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// An open stream counts as long as this lives.
#[derive(Debug)]
struct Seat {
    user: UserId,
    streams: Arc<Mutex<HashMap<UserId, usize>>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut streams = taken(&self.streams);
        if let Some(own) = streams.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                streams.remove(&self.user);
            }
        }
        metrics::gauge!("livekit_replay_event_streams").decrement(1);
    }
}

/// Numbers events and hands them on, until told to stop.
pub async fn run(deps: Deps) {
    let hub = &deps.wake.events;
    let mut told = None;
    while !deps.stop.is_cancelled() {
        let bell = hub.written.notified();
        match pass(&deps, &mut told).await {
            // there may be more
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = error.chain(), "events wait"),
        }
        tokio::select! {
            () = bell => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = deps.stop.cancelled() => {}
        }
    }
}

/// One look: what is new gets its place, what has one and was not told here goes to the streams. `told` is the place up
/// to which that was done. True if there may be more.
pub async fn pass(deps: &Deps, told: &mut Option<i64>) -> Result<bool> {
    let conn = deps.db.conn();
    let from = match *told {
        Some(from) => from,
        // streams that open now read rows up to here themselves
        None => *told.insert(event::head(conn).await?.seq),
    };
    let numbered = number(deps).await?;
    let new = event::list_after(conn, &Scope::All, from, BATCH).await?;
    let full = |count: usize| u64::try_from(count).is_ok_and(|count| count >= BATCH);
    let more = full(new.len()) || full(numbered);
    for row in new {
        *told = row.seq.or(*told);
        // nobody may be listening
        let _ = deps.wake.events.live.send(Arc::new(row));
    }
    Ok(more)
}

/// Gives new events their places, and a row for every endpoint that wants them; says how many.
async fn number(deps: &Deps) -> Result<usize> {
    if !event::any_unnumbered(deps.db.conn()).await? {
        return Ok(0);
    }
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let new = event::number(&tx, BATCH).await?;
    let mut to_deliver = false;
    for row in &new {
        for endpoint in deps.config.webhooks.iter().filter(|endpoint| endpoint.wants(row.kind)) {
            let event = (&row.id, &row.user_id, row.seq.unwrap_or_default());
            delivery::enqueue(&tx, event, &endpoint.name, now).await?;
            to_deliver = true;
        }
    }
    store::commit(tx).await?;
    if to_deliver {
        deps.wake.events.deliveries.notify_waiters();
    }
    Ok(new.len())
}

/// Forgets what nobody is promised any more: tickets, deliveries that came to their end, events. A dry run only counts
/// what one step would take.
pub(super) async fn sweep(deps: &Deps, dry_run: bool) -> Result<u64> {
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let mut gone = tickets::delete_expired(&tx, now).await?;
    delivery::give_up_before(&tx, now.plus_seconds(-DEAD_SECONDS), now).await?;
    for (state, seconds) in
        [(DeliveryState::Delivered, DELIVERED_SECONDS), (DeliveryState::Dead, DEAD_SECONDS)]
    {
        gone += delivery::delete_before(&tx, state, now.plus_seconds(-seconds)).await?;
    }
    if dry_run {
        store::rollback(tx).await?;
    } else {
        store::commit(tx).await?;
    }
    for _ in 0..SWEEP.1 {
        let tx = deps.db.begin().await?;
        let events = event::delete_before(&tx, now.minus(KEPT), SWEEP.0).await?;
        gone += events;
        if dry_run {
            store::rollback(tx).await?;
            break;
        }
        store::commit(tx).await?;
        if events < SWEEP.0 {
            break;
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_bounded_number_of_streams_and_so_has_a_user() {
        let hub = Hub::default();
        let mut seats = Vec::new();
        let refused = loop {
            match hub.seat(&UserId::new(format!("user-{}", seats.len()))) {
                Ok(seat) => seats.push(seat),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.code(), Code::Overloaded);
        assert!(refused.retry_delay().is_some());
        assert_eq!(seats.len(), most_streams());
        seats.pop();
        // the room that one left is anybody's
        let seat = hub.seat(&UserId::new("user-0")).expect("room");
        drop((seat, seats));
        let own: Vec<_> = (0..STREAMS_OF_ONE).map(|_| hub.seat(&UserId::new("ann"))).collect();
        assert!(own.iter().all(Result::is_ok));
        let ninth = hub.seat(&UserId::new("ann")).expect_err("too many");
        assert_eq!(ninth.code(), Code::RateLimited);
        assert!(hub.seat(&UserId::new("bob")).is_ok());
    }
}
