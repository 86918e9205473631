//! A LiveKit server and its egress workers, simulated on the wire: for tests, the demo and the `simulator` command.
//!
//! Product code speaks to it as to a server and cannot tell the difference; nothing here is imported by it. What it
//! promises: the Twirp calls a recorder needs (`twirp`, `egress_calls`, `room_calls`), rooms and tracks (`world`),
//! egresses with their states (`egress_state`, `egress_run`), real media (`encoder`, `screen`), segments and playlists
//! released when egress releases them (`release`, `playlist`, `paths`), webhooks (`webhook`), and all of it going
//! wrong on command (`fault`, and the methods below). [`marker`] and [`decode`] read back what was recorded.
//! `control` offers the same over `/sim/…` to those in another process.
//!
//! What it does not do: signalling and media of clients, storage other than local files, recordings other than
//! segments of a screen share, rooms that close because they are empty, the two seconds without pictures with which
//! a real egress ends a black stretch.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{Router, routing::post};
use livekit_protocol as proto;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::{Error, Result};

mod control;
pub mod decode;
mod egress_calls;
mod egress_run;
mod egress_state;
mod encoder;
mod fault;
mod id;
pub mod marker;
mod paths;
mod playlist;
mod release;
mod request;
mod room_calls;
mod screen;
mod setup;
mod twirp;
mod webhook;
mod world;

pub use fault::{CallAction, CallFault};
pub use setup::{
    CalledMethod, Corruption, EgressConfig, EgressView, Media, Share, ShareHandle, SimConfig,
};
pub use webhook::{Delivery, HookAction, HookFault};

use egress_state::{Control, End};
use webhook::Webhooks;
use world::World;

/// The running simulator. Dropping it ends its tasks; [`shutdown`](Simulator::shutdown) also waits for them.
pub struct Simulator {
    sim: Sim,
}

impl std::ops::Deref for Simulator {
    type Target = Sim;

    fn deref(&self) -> &Sim {
        &self.sim
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.sim.world.cancel.cancel();
    }
}

impl Simulator {
    /// Starts listening. Fails when the address is taken or the scratch directory cannot be made.
    pub async fn start(config: SimConfig) -> Result<Simulator> {
        let doing = |what: &'static str| move |error: std::io::Error| Error::internal(what, error);
        let key = config
            .keys
            .first()
            .cloned()
            .ok_or_else(|| Error::invalid_field("keys", "at least one"))?;
        let scratch = std::env::temp_dir().join(format!("livekit-simulator-{}", id::new("sim")));
        tokio::fs::create_dir_all(&scratch).await.map_err(doing("making the scratch directory"))?;
        let listener = TcpListener::bind(config.listen).await.map_err(doing("listening"))?;
        let address = listener.local_addr().map_err(doing("listening"))?;
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let hooks = Webhooks::new(key, config.webhook_urls.clone(), tasks.clone(), cancel.clone())
            .map_err(|error| Error::internal("making the webhook client", error))?;
        let world = Arc::new(World::new(config, hooks, tasks, cancel, scratch));
        let sim = Sim { world, address };
        sim.world.tasks.spawn(serve(listener, sim.clone()));
        Ok(Simulator { sim })
    }

    /// Ends everything, waits for every task and encoder, removes the scratch directory.
    pub async fn shutdown(self) {
        self.sim.world.cancel.cancel();
        self.sim.world.tasks.close();
        self.sim.world.tasks.wait().await;
        // a directory that cannot be removed is the system's to clean
        let _ = tokio::fs::remove_dir_all(&self.sim.world.scratch).await;
    }
}

async fn serve(listener: TcpListener, sim: Sim) {
    let cancel = sim.world.cancel.clone();
    let router = Router::new()
        .route("/twirp/{service}/{method}", post(twirp::handle))
        .fallback(twirp::no_route)
        .with_state(sim.world.clone())
        .merge(control::router(sim));
    let server =
        axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    tokio::select! {
        // accepting cannot fail for good; if it does, callers see a server that is gone
        _ = server => {}
        // open connections get a moment to finish, idle ones would hold us for ever
        () = async { cancel.cancelled().await; tokio::time::sleep(Duration::from_millis(200)).await } => {}
    }
}

/// The handle to a running simulator: cheap to clone, does not keep it running.
#[derive(Clone)]
pub struct Sim {
    world: Arc<World>,
    address: SocketAddr,
}

impl Sim {
    /// `http://127.0.0.1:…`, what clients are given.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same for clients that want `ws://`.
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The first API key.
    pub fn api_key(&self) -> &str {
        &self.world.config.keys[0].0
    }

    /// The first API key's secret.
    pub fn api_secret(&self) -> &str {
        &self.world.config.keys[0].1
    }

    // ---- rooms, people, tracks ----

    /// Opens a room, or finds it open. Joining opens rooms too.
    pub fn room(&self, name: &str) -> proto::Room {
        self.world.create_room(name, None)
    }

    /// Opens a room if needed and sets its metadata.
    pub fn set_room_metadata(&self, name: &str, metadata: &str) {
        self.world.create_room(name, Some(metadata));
    }

    /// Closes a room: everybody leaves.
    pub fn close_room(&self, name: &str) -> Result<()> {
        self.world.close_room(name).then_some(()).ok_or_else(|| Error::not_found("room"))
    }

    /// Lets somebody join (again).
    pub fn join(&self, room: &str, identity: &str) {
        self.world.join(room, identity, identity, proto::participant_info::Kind::Standard);
    }

    /// Lets somebody leave with all tracks.
    pub fn leave(&self, room: &str, identity: &str) -> Result<()> {
        self.world
            .leave(room, identity)
            .then_some(())
            .ok_or_else(|| Error::not_found("participant"))
    }

    /// Who is in a room, egresses included (they are hidden from people, not from the API).
    pub fn participants(&self, room: &str) -> Vec<proto::ParticipantInfo> {
        self.world.participants(room)
    }

    /// Publishes a screen share; joins first if need be.
    pub fn publish_share(&self, room: &str, identity: &str, share: Share) -> Result<ShareHandle> {
        let live = share.media == Media::Live;
        let mut tracks = vec![(proto::TrackSource::ScreenShare, (share.width, share.height), live)];
        if share.audio {
            tracks.push((proto::TrackSource::ScreenShareAudio, (0, 0), live));
        }
        let mut sids = self.publish(room, identity, &tracks)?.into_iter();
        Ok(ShareHandle {
            room: room.to_owned(),
            identity: identity.to_owned(),
            video: sids.next().unwrap_or_default(),
            audio: sids.next(),
        })
    }

    /// Publishes the sound of a screen that is shared already.
    pub fn publish_audio(&self, room: &str, identity: &str) -> Result<String> {
        self.publish_track(room, identity, proto::TrackSource::ScreenShareAudio, (0, 0))
    }

    /// Publishes any track (a microphone, a camera).
    pub fn publish_track(
        &self,
        room: &str,
        identity: &str,
        source: proto::TrackSource,
        size: (u32, u32),
    ) -> Result<String> {
        let sids = self.publish(room, identity, &[(source, size, true)])?;
        Ok(sids.into_iter().next().unwrap_or_default())
    }

    fn publish(
        &self,
        room: &str,
        identity: &str,
        tracks: &[(proto::TrackSource, (u32, u32), bool)],
    ) -> Result<Vec<String>> {
        if !self.world.participants(room).iter().any(|one| one.identity == identity) {
            self.join(room, identity);
        }
        self.world.publish(room, identity, tracks)
    }

    /// Unpublishes one track.
    pub fn unpublish(&self, track: &str) -> Result<()> {
        self.world.unpublish(track)
    }

    /// Ends a screen share: sound and picture.
    pub fn unpublish_share(&self, share: &ShareHandle) -> Result<()> {
        if let Some(audio) = &share.audio {
            self.unpublish(audio)?;
        }
        self.unpublish(&share.video)
    }

    /// Mutes (egress records black or silence) or unmutes a track.
    pub fn set_muted(&self, track: &str, muted: bool) -> Result<()> {
        self.world.set_muted(track, muted).map(|_| ())
    }

    /// Changes the size of the shared window: the recording keeps its own and gets borders.
    pub fn resize(&self, track: &str, width: u32, height: u32) -> Result<()> {
        self.world.resize(track, width, height)
    }

    // ---- misbehaviour ----

    /// The egress host dies: nobody is told, the record stays as it is for ever.
    pub fn kill_egress(&self, egress_id: &str) -> Result<()> {
        let control = self.egress(egress_id)?;
        control.dead.store(true, Ordering::Relaxed);
        control.end(End::Died);
        Ok(())
    }

    /// The egress fails with a text and a code; what was not out yet is lost.
    pub fn fail_egress(&self, egress_id: &str, error: &str, code: i32) -> Result<()> {
        self.egress(egress_id)?.end(End::Failed(error.to_owned(), code));
        Ok(())
    }

    /// The session limit strikes.
    pub fn limit_egress(&self, egress_id: &str) -> Result<()> {
        self.egress(egress_id)?.end(End::Limit);
        Ok(())
    }

    /// Sets the egress host's clock forward (or back, with a negative number of milliseconds).
    pub fn step_host_clock(&self, ms: i64) {
        self.world.host_clock_skew_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// The egress is aborted; what was not out yet is lost.
    pub fn abort_egress(&self, egress_id: &str) -> Result<()> {
        self.egress(egress_id)?.end(End::Aborted);
        Ok(())
    }

    /// No segment comes out for a while; then all that are due.
    pub fn pause_sink(&self, egress_id: &str, duration: Duration) -> Result<()> {
        self.egress(egress_id)?.pause_until(Instant::now() + duration);
        Ok(())
    }

    /// Spoils the next segment that comes out; several calls spoil several.
    pub fn corrupt_next_segment(&self, egress_id: &str, how: Corruption) -> Result<()> {
        self.egress(egress_id)?.corrupt_next(how);
        Ok(())
    }

    /// Adds a rule for coming calls; the first that fits is applied.
    pub fn add_call_fault(&self, fault: CallFault) {
        self.world.lock().call_faults.add(fault);
    }

    /// All calls go well again (those that hang go on hanging).
    pub fn clear_call_faults(&self) {
        self.world.lock().call_faults.clear();
    }

    /// The server does not answer any call any more, until the faults are cleared.
    pub fn stop_answering(&self) {
        self.add_call_fault(CallFault {
            method: "*".to_owned(),
            action: CallAction::Hang,
            times: None,
            for_ms: None,
        });
    }

    /// Adds a rule for coming webhooks.
    pub fn add_webhook_fault(&self, fault: HookFault) {
        self.world.hooks.add_fault(fault);
    }

    /// All webhooks go well again.
    pub fn clear_webhook_faults(&self) {
        self.world.hooks.clear_faults();
    }

    /// Changes the addresses of webhooks.
    pub fn set_webhook_urls(&self, urls: Vec<String>) {
        self.world.hooks.set_urls(urls);
    }

    // ---- questions for assertions ----

    /// How many calls went wrong by a rule since the start.
    pub fn call_fault_hits(&self) -> u64 {
        self.world.lock().call_faults.hits()
    }

    /// How many webhooks went wrong by a rule since the start.
    pub fn webhook_fault_hits(&self) -> u64 {
        self.world.hooks.hits()
    }

    /// Present addresses of webhooks.
    pub fn webhook_urls(&self) -> Vec<String> {
        self.world.hooks.urls()
    }

    /// All egresses since the start.
    pub fn egresses(&self) -> Vec<EgressView> {
        self.world.egress_views()
    }

    /// Private directory of growing segments; gone after [`shutdown`](Simulator::shutdown).
    pub fn scratch(&self) -> &std::path::Path {
        &self.world.scratch
    }

    /// How many encoders run at this moment.
    pub fn running_encoders(&self) -> usize {
        self.world.running_encoders()
    }

    /// All calls since the start.
    pub fn calls(&self) -> Vec<CalledMethod> {
        self.world.calls()
    }

    /// All webhooks delivered or given up since the start.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.world.hooks.deliveries()
    }

    fn egress(&self, egress_id: &str) -> Result<Arc<Control>> {
        self.world.control(egress_id).ok_or_else(|| Error::not_found("egress"))
    }
}
