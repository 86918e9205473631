//! The control socket: the API for the command line, as instance administrator. Whoever may open it is the same user
//! or root, which the kernel says of every peer; no token is asked for.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::HeaderMap,
    middleware::{self, Next},
    response::Response,
};
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

use super::Failure;
use crate::{
    access::{Caller, INSTANCE_ADMIN},
    clock::SharedClock,
    config::Config,
    domain::id::UserId,
    flow::Deps,
};

/// Who the command line is in audits.
pub const OPERATOR: &str = "operator@localhost";

/// Asks as this user, by database roles alone, instead of as the administrator: how a decision about somebody is explained.
pub const AS_USER: &str = "x-livekit-replay-as";

/// Where the socket of this data directory is.
pub fn path(config: &Config) -> PathBuf {
    config.data_dir.join("control.sock")
}

/// Makes the socket. The lock is ours, so one that is there is left over.
pub(super) fn bind(config: &Config) -> Result<UnixListener, Failure> {
    let path = path(config);
    let unusable = |error: std::io::Error| {
        Failure::Setup(format!("the control socket {} cannot be made: {error}", path.display()))
    };
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(error)),
    }
    let listener = UnixListener::bind(&path).map_err(unusable)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(unusable)?;
    Ok(listener)
}

/// Removes the socket at the end.
pub(super) fn remove(config: &Config) {
    // one that stays is removed by the next start
    let _ = std::fs::remove_file(path(config));
}

/// Serves until told to stop.
pub(super) async fn serve(listener: UnixListener, router: Router, deps: Deps) {
    let own = rustix::process::geteuid().as_raw();
    let router = as_operator(router, deps.clock.clone());
    let served = axum::serve(OwnPeers { listener, own }, router.into_make_service())
        .with_graceful_shutdown(deps.stop.clone().cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the control socket failed");
    }
}

/// The router as it answers the command line, over the socket or in the command's own process.
pub fn as_operator(router: Router, clock: SharedClock) -> Router {
    router.layer(middleware::from_fn_with_state(clock, sign_in))
}

async fn sign_in(State(clock): State<SharedClock>, mut request: Request, next: Next) -> Response {
    let caller = caller(request.headers(), &clock);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn caller(headers: &HeaderMap, clock: &SharedClock) -> Caller {
    let other = headers.get(AS_USER).and_then(|value| hex::decode(value.as_bytes()).ok());
    let other = other.and_then(|bytes| String::from_utf8(bytes).ok());
    let roles = if other.is_some() { Vec::new() } else { vec![INSTANCE_ADMIN.to_owned()] };
    Caller {
        user_id: UserId::new(other.unwrap_or_else(|| OPERATOR.to_owned())),
        name: None,
        issued_at: Some(clock.now()),
        communities: std::collections::BTreeMap::new(),
        roles,
    }
}

/// Takes connections of our own user and of root; others are closed at once.
struct OwnPeers {
    listener: UnixListener,
    own: u32,
}

impl axum::serve::Listener for OwnPeers {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, addr)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == self.own || peer.uid() == 0 => return (stream, addr),
                    Ok(peer) => tracing::warn!(uid = peer.uid(), "refused on the control socket"),
                    Err(error) => tracing::warn!(%error, "a peer without credentials"),
                },
                Err(error) => {
                    // out of descriptors, most likely: wait for some to come back
                    tracing::warn!(%error, "accepting on the control socket");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
