//! The control socket: the API for the command line, as instance administrator. Whoever may open it is the same user
//! or root, which the kernel says of every peer; no token is asked for.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::HeaderMap,
    middleware::{self, Next},
    response::Response,
    serve::IncomingStream,
};
use tokio::net::{UnixListener, UnixStream};

use super::Failure;
use crate::{
    access::{Caller, INSTANCE_ADMIN, Origin},
    clock::SharedClock,
    config::Config,
    domain::{audit::Door, id::UserId},
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
    let router = router.into_make_service_with_connect_info::<Peer>();
    let served = axum::serve(OwnPeers { listener, own }, router)
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
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| *peer);
    let origin = match peer {
        Some(Peer { uid }) => {
            Origin { door: Door::ControlSocket, uid: Some(uid), ..Origin::default() }
        }
        None => {
            let uid = Some(rustix::process::getuid().as_raw());
            Origin { door: Door::CommandLine, uid, ..Origin::default() }
        }
    };
    let caller = caller(request.headers(), &clock, origin);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn caller(headers: &HeaderMap, clock: &SharedClock, origin: Origin) -> Caller {
    let other = headers.get(AS_USER).and_then(|value| hex::decode(value.as_bytes()).ok());
    let other = other.and_then(|bytes| String::from_utf8(bytes).ok());
    let roles = if other.is_some() { Vec::new() } else { vec![INSTANCE_ADMIN.to_owned()] };
    Caller {
        user_id: UserId::new(other.unwrap_or_else(|| OPERATOR.to_owned())),
        name: None,
        issued_at: Some(clock.now()),
        communities: std::collections::BTreeMap::new(),
        roles,
        origin,
    }
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Debug, Clone, Copy)]
struct Peer {
    uid: u32,
}

impl Connected<IncomingStream<'_, OwnPeers>> for Peer {
    fn connect_info(stream: IncomingStream<'_, OwnPeers>) -> Peer {
        *stream.remote_addr()
    }
}

/// Takes connections of our own user and of root; others are closed at once.
struct OwnPeers {
    listener: UnixListener,
    own: u32,
}

impl axum::serve::Listener for OwnPeers {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == self.own || peer.uid() == 0 => {
                        return (stream, Peer { uid: peer.uid() });
                    }
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

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer { uid: self.own })
    }
}
