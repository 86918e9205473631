//! The HTTP door's connections: how many there may be, how long a head may take to come, how long a peer may take
//! nothing of its answer. TLS is the proxy's; between it and us HTTP/1.1 is spoken.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// After a failed accept (most likely no descriptors are left), until the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// What a peer may take of us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections open at once; more wait in the system's queue.
    pub open: usize,
    /// Time for the whole head of a request; also how long an idle connection is kept.
    pub head: Duration,
    /// Time for which nothing of an answer is taken.
    pub stalled: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
}

impl Limits {
    /// For this process: half of the descriptors that it may have, as files and the database need some too.
    pub(super) fn of_this_process() -> Limits {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half =
            files.map_or(usize::MAX, |files| usize::try_from(files / 2).unwrap_or(usize::MAX));
        Limits {
            open: half.clamp(64, 4096),
            head: Duration::from_secs(30),
            stalled: Duration::from_secs(60),
            head_bytes: 64 * 1024,
            headers: 100,
        }
    }
}

/// Serves until told to stop; then every connection ends with the answer it is giving, and all are awaited.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.open));
    let (graceful, open) = (GracefulShutdown::new(), TaskTracker::new());
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head);
    server.max_buf_size(limits.head_bytes).max_headers(limits.headers);
    while let Some((stream, peer, place)) = next(&listener, &places, &stop).await {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.stalled));
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        });
        let connection = server.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = graceful.watch(connection);
        open.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    open.close();
    open.wait().await;
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is a place for it; none when it is time to stop.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<Accepted> {
    let accepted = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // answers are small or streamed in large pieces: nothing is won by waiting to fill packets
                    let _ = stream.set_nodelay(true);
                    return Some((stream, peer, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepted).await.flatten()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Door {
        at: SocketAddr,
        stop: CancellationToken,
        served: tokio::task::JoinHandle<()>,
    }

    impl Door {
        async fn open(limits: Limits) -> Door {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let stop = CancellationToken::new();
            let endless = || async {
                let pieces =
                    futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 1 << 16]));
                Body::from_stream(pieces)
            };
            let peer = |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() };
            let router = Router::new().route("/endless", get(endless)).route("/peer", get(peer));
            let served = tokio::spawn(serve(listener, router, limits, stop.clone()));
            Door { at, stop, served }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.at).await.unwrap()
        }

        async fn close(self) {
            self.stop.cancel();
            tokio::time::timeout(PATIENCE, self.served).await.expect("it ends").unwrap();
        }
    }

    fn limits() -> Limits {
        Limits { open: 8, head: SOON, stalled: SOON, head_bytes: 16 * 1024, headers: 20 }
    }

    /// What comes until the other side closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        // a reset is an end too
        let _ = read.expect("it is closed");
        String::from_utf8_lossy(&all).into_owned()
    }

    const PEER: &str = "GET /peer HTTP/1.1\r\nhost: a\r\n";

    #[tokio::test]
    async fn who_sends_nothing_or_half_a_head_or_nothing_more_is_closed() {
        let door = Door::open(limits()).await;
        for sent in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PEER] {
            let mut stream = door.connect().await;
            stream.write_all(sent.as_bytes()).await.unwrap();
            assert!(!rest(&mut stream).await.contains(" 200 "), "{sent}");
        }
        let mut idle = door.connect().await;
        idle.write_all(format!("{PEER}\r\n").as_bytes()).await.unwrap();
        let own = idle.local_addr().unwrap();
        let answer = rest(&mut idle).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(&own.to_string()),
            "{answer}"
        );
        door.close().await;
    }

    #[tokio::test]
    async fn a_head_too_large_is_refused() {
        let door = Door::open(limits()).await;
        let long = format!("{PEER}x: {}\r\n\r\n", "a".repeat(20_000));
        let many = format!("{PEER}{}\r\n", "x: a\r\n".repeat(30));
        for sent in [long, many] {
            let mut stream = door.connect().await;
            stream.write_all(sent.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
        door.close().await;
    }

    #[tokio::test]
    async fn who_stops_reading_is_closed_and_the_place_is_free_again() {
        let door = Door::open(Limits { open: 1, ..limits() }).await;
        let mut deaf = door.connect().await;
        deaf.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // waits in the system's queue until the only place is free
        let mut next = door.connect().await;
        next.write_all(format!("{PEER}connection: close\r\n\r\n").as_bytes()).await.unwrap();
        assert!(rest(&mut next).await.starts_with("HTTP/1.1 200 OK"));
        drop(deaf);
        door.close().await;
    }
}
