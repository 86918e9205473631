//! The way to LiveKit: a relay that can be closed, so that nobody is reached.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
};

#[derive(Clone)]
pub struct Gate {
    pub url: String,
    open: Arc<watch::Sender<bool>>,
    turned_away: Arc<AtomicU64>,
}

impl Gate {
    /// Relays to what is named (`http://host:port`) over the channel.
    pub async fn before_something() -> (Gate, oneshot::Sender<String>) {
        let (known, target) = oneshot::channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let open = Arc::new(watch::Sender::new(true));
        let gate = Gate { url, open, turned_away: Arc::default() };
        // goes with the test's runtime
        tokio::spawn(gate.clone().serve(listener, target));
        (gate, known)
    }

    async fn serve(self, listener: TcpListener, target: oneshot::Receiver<String>) {
        let Ok(target) = target.await else { return };
        let target: SocketAddr = target.trim_start_matches("http://").parse().expect("an address");
        while let Ok((near, _)) = listener.accept().await {
            if !*self.open.borrow() {
                // closed before a byte was read
                self.turned_away.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let (mut open, turned_away) = (self.open.subscribe(), Arc::clone(&self.turned_away));
            tokio::spawn(async move {
                tokio::select! {
                    () = relay(near, target) => {}
                    // only the runtime's end drops the sender
                    _ = open.wait_for(|open| !open) => drop(turned_away.fetch_add(1, Ordering::SeqCst)),
                }
            });
        }
    }

    /// Everything under way is cut, nobody gets through any more.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Connections that were cut or refused so far.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::SeqCst)
    }
}

async fn relay(mut near: TcpStream, target: SocketAddr) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        // either side may break off when it likes
        let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    }
}
