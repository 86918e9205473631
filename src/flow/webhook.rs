//! A verified webhook becomes what it means for us. Once by event id; order does not matter, because every fact only
//! makes us look at what is, and lost ones are made up for by the reconcile pass.

use super::{
    Deps, auto_start,
    egress_fact::{self, Source},
    supervise,
};
use crate::{
    domain::share::TrackSource,
    error::Result,
    livekit::webhook::{Event, Fact},
    store::webhook,
};

/// Applies an event, unless it was seen before.
pub async fn apply(deps: &Deps, event: &Event) -> Result<()> {
    if !event.id.is_empty()
        && !webhook::remember(deps.db.conn(), &event.id, deps.clock.now()).await?
    {
        return Ok(());
    }
    match &event.fact {
        Fact::Egress(fact) => egress_fact::apply(deps, fact, Source::Webhook).await.map(drop),
        Fact::TrackPublished { room, identity, track, source } => {
            if *source == TrackSource::Other {
                return Ok(());
            }
            supervise::look_at_room(deps, room).await?;
            if *source == TrackSource::ScreenShare {
                auto_start::consider(deps, room, identity, track).await?;
            }
            Ok(())
        }
        Fact::TrackUnpublished { room, source, .. } => {
            if *source == TrackSource::ScreenShare {
                supervise::look_at_room(deps, room).await?;
            }
            Ok(())
        }
        Fact::ParticipantLeft { room, .. } | Fact::RoomFinished { room } => {
            supervise::look_at_room(deps, room).await
        }
        Fact::Other => Ok(()),
    }
}
