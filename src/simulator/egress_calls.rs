//! The Egress service: start, list, stop.

use std::sync::{Arc, atomic::Ordering};

use livekit_protocol as proto;
use proto::EgressStatus;

use super::{
    egress_run,
    egress_state::End,
    id,
    request::Spec,
    twirp::{Call, Refusal, answer},
    world::World,
};

pub(super) async fn handle(world: &Arc<World>, call: &Call) -> Result<Vec<u8>, Refusal> {
    match call.method.as_str() {
        "StartTrackCompositeEgress" => {
            start(world, call, |call| Spec::track_composite(call.decode()?, &local_time()))
        }
        "StartEgress" => start(world, call, |call| Spec::media(call.decode()?, &local_time())),
        "ListEgress" => list(world, call),
        "StopEgress" => stop(world, call).await,
        _ => Err(call.bad_route("livekit.Egress")),
    }
}

fn start(
    world: &Arc<World>,
    call: &Call,
    read: impl FnOnce(&Call) -> Result<Spec, Refusal>,
) -> Result<Vec<u8>, Refusal> {
    call.require(call.grants.room_record)?;
    let spec = read(call)?;
    if spec.room.is_empty() {
        return Err(Refusal::invalid(
            "request has missing or invalid field: token or api key/secret",
        ));
    }
    if world.room(&spec.room).is_none() {
        return Err(Refusal::relayed("not_found", "requested room does not exist"));
    }
    if world.config.egress.workers.is_some_and(|limit| world.lock().busy_workers() >= limit) {
        return Err(Refusal::new("unavailable", "no response from servers"));
    }
    let egress_id = id::new("EG");
    let (info, control) = world.add_egress(&egress_id, &spec);
    world.tasks.spawn(egress_run::run(world.clone(), egress_id, spec, control));
    Ok(answer(&info))
}

/// The server's local time as it stands in default names; stock images run in UTC.
fn local_time() -> String {
    let seconds = (id::now_ms() / 1000) as i64;
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.format("%Y-%m-%dT%H%M%S").to_string()
}

fn list(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    call.require(call.grants.room_record)?;
    let request: proto::ListEgressRequest = call.decode()?;
    let state = world.lock();
    if !request.egress_id.is_empty() {
        let egress = state.egresses.get(&request.egress_id);
        let egress = egress.ok_or_else(unknown)?;
        let items = vec![egress.info().clone()];
        return Ok(answer(&proto::ListEgressResponse { items, ..Default::default() }));
    }
    let wanted = state.egresses.values().filter(|egress| {
        (request.room_name.is_empty() || egress.info().room_name == request.room_name)
            && !(request.active && egress.is_over())
    });
    let items = wanted.map(|egress| egress.info().clone()).collect();
    Ok(answer(&proto::ListEgressResponse { items, ..Default::default() }))
}

async fn stop(world: &World, call: &Call) -> Result<Vec<u8>, Refusal> {
    call.require(call.grants.room_record)?;
    let egress_id = call.decode::<proto::StopEgressRequest>()?.egress_id;
    let control = world.control(&egress_id).ok_or_else(unknown)?;
    if control.dead.load(Ordering::Relaxed) {
        world.pause(world.config.egress.dead_answer).await;
        return Err(Refusal::relayed("deadline_exceeded", "request timed out"));
    }
    // while an egress waits for its tracks it hears nothing, and the call waits with it
    let settled = control.settled();
    if tokio::time::timeout(world.config.egress.stop_wait, settled).await.is_err() {
        return Err(Refusal::relayed("deadline_exceeded", "request timed out"));
    }
    let stored =
        |world: &World| world.lock().egresses.get(&egress_id).map(|egress| egress.info().clone());
    let info = stored(world).ok_or_else(unknown)?;
    if info.status >= EgressStatus::EgressComplete as i32 {
        let name = info.status().as_str_name();
        return Err(Refusal::new(
            "failed_precondition",
            format!("egress with status {name} cannot be stopped"),
        ));
    }
    control.end(End::Stopped);
    if info.status() == EgressStatus::EgressStarting {
        egress_run::abort_start(world, &egress_id);
    } else {
        world.egress_ending(&egress_id, &End::Stopped);
    }
    Ok(answer(&stored(world).unwrap_or(info)))
}

fn unknown() -> Refusal {
    Refusal::relayed("not_found", "egress does not exist")
}
