//! What operators see of deliveries, and what they make begin anew.

use std::collections::HashMap;

use serde_json::json;

use crate::{
    access::Caller,
    domain::{audit::Action, event::EventKind, id::EventId, time::Timestamp},
    error::{Error, Result},
    flow::{
        Deps,
        audit_log::{self, Line},
        authorize,
    },
    store::{
        self, Page,
        delivery::{self, Filter},
        event,
    },
};

pub use crate::store::delivery::{DeliveryState, Model as Delivery};

/// A delivery with what it is of and where it goes.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The row.
    pub delivery: Delivery,
    /// What happened; none if the event is gone.
    pub kind: Option<EventKind>,
    /// When it happened.
    pub created_at: Option<Timestamp>,
    /// The endpoint's address without credentials and query; none if it is in these settings no more.
    pub url: Option<String>,
}

/// A page of deliveries, newest first, with the total. For an instance admin.
///
/// # Errors
/// `permission_denied`.
pub async fn list(
    deps: &Deps,
    caller: &Caller,
    state: Option<DeliveryState>,
    endpoint: Option<String>,
    page: Page,
) -> Result<(Vec<Listed>, u64)> {
    authorize::require_instance_admin(deps, caller).await?;
    let filter = Filter { state, endpoint, ..Filter::default() };
    let (rows, total) = delivery::list(deps.db.conn(), &filter, page).await?;
    let ids: Vec<EventId> = rows.iter().map(|row| row.event_id.clone()).collect();
    let events = event::list_of(deps.db.conn(), &ids).await?;
    let events: HashMap<EventId, (EventKind, Timestamp)> =
        events.into_iter().map(|row| (row.id, (row.kind, row.created_at))).collect();
    let urls: HashMap<&str, String> = deps
        .config
        .webhooks
        .iter()
        .map(|endpoint| (endpoint.name.as_str(), endpoint.shown_url()))
        .collect();
    let listed = rows.into_iter().map(|delivery| {
        let event = events.get(&delivery.event_id);
        Listed {
            kind: event.map(|(kind, _)| *kind),
            created_at: event.map(|(_, at)| *at),
            url: urls.get(delivery.endpoint.as_str()).cloned(),
            delivery,
        }
    });
    Ok((listed.collect(), total))
}

/// What is to be delivered again.
#[derive(Debug, Clone)]
pub enum Again {
    /// One event, whatever came of it.
    Event(EventId),
    /// Everything that was given up, since a moment.
    Dead(Option<Timestamp>),
}

/// Makes deliveries begin anew, to all endpoints that want them or to one; says how many (or, dry, would be). For an
/// instance admin.
///
/// # Errors
/// `permission_denied`, `not_found` for an event that is kept no more, `validation_failed` for an endpoint that is in
/// no settings.
pub async fn redeliver(
    deps: &Deps,
    caller: &Caller,
    again: Again,
    endpoint: Option<String>,
    dry_run: bool,
) -> Result<u64> {
    authorize::require_instance_admin(deps, caller).await?;
    let known = |name: &String| deps.config.webhooks.iter().any(|one| one.name == *name);
    if endpoint.as_ref().is_some_and(|name| !known(name)) {
        return Err(Error::invalid_field("endpoint", "is the name of no configured endpoint"));
    }
    let now = deps.clock.now();
    let tx = deps.db.begin().await?;
    let count = match &again {
        Again::Event(id) => {
            let event = event::find(&tx, id).await?.ok_or_else(|| Error::not_found("event"))?;
            let mut count = 0;
            for one in &deps.config.webhooks {
                let named =
                    endpoint.as_ref().map_or(one.wants(event.kind), |name| *name == one.name);
                if named {
                    // one that has no place yet gets its deliveries with it
                    let Some(seq) = event.seq else { continue };
                    delivery::enqueue(&tx, (&event.id, &event.user_id, seq), &one.name, now)
                        .await?;
                    count += 1;
                }
            }
            count
        }
        Again::Dead(since) => {
            // those of endpoints that are configured no more would wait for nobody
            let names = deps.config.webhooks.iter().map(|one| one.name.clone());
            let names = names.filter(|name| endpoint.as_ref().is_none_or(|wanted| wanted == name));
            let mut count = 0;
            for name in names {
                let state = Some(DeliveryState::Dead);
                let filter = Filter { state, endpoint: Some(name), since: *since, event_id: None };
                count += delivery::begin_again(&tx, &filter, now).await?;
            }
            count
        }
    };
    if dry_run {
        store::rollback(tx).await?;
        return Ok(count);
    }
    let which = match &again {
        Again::Event(id) => json!({ "eventId": id }),
        Again::Dead(since) => json!({ "dead": true, "since": since }),
    };
    let line = Line::new(Action::EventRedeliver)
        .before(which)
        .after(json!({ "endpoint": endpoint, "deliveries": count }));
    audit_log::done(&tx, caller, line, now).await?;
    store::commit(tx).await?;
    deps.wake.events.deliveries.notify_waiters();
    tracing::info!(deliveries = count, "events are delivered again");
    Ok(count)
}
