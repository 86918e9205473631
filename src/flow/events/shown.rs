//! An event as whoever gets it may see it: at most what a route would answer him at this moment.

use serde_json::{Value, json};

use super::Event;
use crate::{
    access::Caller,
    domain::{
        event::EventKind,
        id::{ClipId, SessionId},
        lifecycle::ClipStatus,
    },
    error::{Error, Result},
    flow::{Deps, capture::Visibility, library, links, preview},
    store::{clip, session},
};

/// What every event says: `{id, type, createdAt, data}`.
fn envelope(event: &Event, data: Value) -> Value {
    json!({ "id": event.id, "type": event.kind, "createdAt": event.created_at, "data": data })
}

fn data_of(event: &Event) -> Result<Value> {
    serde_json::from_str(&event.data).map_err(|error| Error::internal("reading an event", error))
}

/// For the app: no signed links, which would speak for a person; the app has its own way in.
///
/// # Errors
/// `internal` if the row holds no JSON.
pub(super) fn to_app(deps: &Deps, event: &Event) -> Result<Value> {
    let mut data = data_of(event)?;
    if event.kind.is_of_clip() && event.kind != EventKind::ClipDeleted {
        let id = data["id"].as_str().unwrap_or_default().to_owned();
        data["downloadUrl"] = json!(links::address(deps, &format!("/clips/{id}/file")));
        let poster = links::address(deps, &format!("/clips/{id}/thumbnail.jpg"));
        data["thumbnailUrl"] = json!((data["status"] != "failed").then_some(poster));
    }
    Ok(envelope(event, data))
}

/// For the person whose session, clip or account it is: with links that speak for him.
///
/// # Errors
/// Those of the database.
pub(super) async fn to_owner(deps: &Deps, caller: &Caller, event: &Event) -> Result<Value> {
    let mut data = data_of(event)?;
    let id = data["id"].as_str().unwrap_or_default().to_owned();
    if event.kind.is_of_session() {
        let row = session::find(deps.db.conn(), &SessionId::new(&id)).await?;
        let query = row.and_then(|row| preview::session_query(deps, caller, &row));
        if let Some(query) = query {
            let path = links::address(deps, &format!("/sessions/{id}/preview.m3u8"));
            data["previewUrl"] = json!(format!("{path}?{query}"));
        }
    } else if event.kind.is_of_clip()
        && let Some(row) = clip::find(deps.db.conn(), &ClipId::new(&id)).await?
    {
        add_links(deps, caller, &row, &mut data);
    }
    Ok(envelope(event, data))
}

/// For a manager of its community; `None` where he may not see it.
///
/// # Errors
/// Those of the database.
pub(super) async fn to_manager(
    deps: &Deps,
    caller: &Caller,
    event: &Event,
) -> Result<Option<Value>> {
    if event.user_id == caller.user_id {
        return to_owner(deps, caller, event).await.map(Some);
    }
    let mut data = data_of(event)?;
    if event.kind.is_of_clip() {
        // as it was when it happened, and as it is now
        let word = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let (status, visibility) = (word("status"), word("visibility"));
        let then = library::Seen {
            owner: &event.user_id,
            community: event.community_id.as_ref(),
            status: ClipStatus::from_name(&status).unwrap_or(ClipStatus::Failed),
            visibility: Visibility::from_name(&visibility).unwrap_or(Visibility::Private),
        };
        if !library::admits(deps, caller, then).await? {
            return Ok(None);
        }
        match clip::find(deps.db.conn(), &ClipId::new(word("id"))).await? {
            Some(row) if library::admits(deps, caller, library::Seen::of(&row)).await? => {
                add_links(deps, caller, &row, &mut data);
            }
            // what was said of a clip that is gone may not have been for all to see in the end; that it is gone, as
            // it was then, is
            None if event.kind == EventKind::ClipDeleted => {}
            _ => return Ok(None),
        }
        if let Some(members) = data.as_object_mut() {
            for name in ["shareError", "messageId", "share"] {
                members.remove(name);
            }
        }
    }
    Ok(Some(envelope(event, data)))
}

fn add_links(deps: &Deps, caller: &Caller, row: &clip::Model, data: &mut Value) {
    let links = library::links(deps, caller, row);
    let base = links::address(deps, &format!("/clips/{}", row.id));
    data["downloadUrl"] = json!(format!("{base}/file?{}", links.video));
    let poster = format!("{base}/thumbnail.jpg?{}", links.poster);
    data["thumbnailUrl"] = json!((row.status != ClipStatus::Failed).then_some(poster));
    if let Some(query) = links.preview {
        data["previewUrl"] = json!(format!("{base}/preview.m3u8?{query}"));
    }
}
