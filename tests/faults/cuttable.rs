//! A way to LiveKit that can be cut: while it is, connections are refused and those that were open are gone.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct Cuttable {
    at: SocketAddr,
    to: SocketAddr,
    open: Mutex<Option<(CancellationToken, TaskTracker)>>,
}

impl Cuttable {
    /// An open way to that `http://` address.
    pub async fn to(url: &str) -> Cuttable {
        let to = url.trim_start_matches("http://").parse().expect("an address with a port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("bound");
        let way = Cuttable { at, to, open: Mutex::default() };
        way.serve(listener).await;
        way
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Nobody listens any more.
    pub async fn cut(&self) {
        let (stop, tasks) = self.open.lock().await.take().expect("open");
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    /// The same address leads there again.
    pub async fn mend(&self) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("allowed");
        socket.bind(self.at).expect("its own port again");
        self.serve(socket.listen(64).expect("listens")).await;
    }

    async fn serve(&self, listener: TcpListener) {
        let (stop, tasks, to) = (CancellationToken::new(), TaskTracker::new(), self.to);
        *self.open.lock().await = Some((stop.clone(), tasks.clone()));
        let own = tasks.clone();
        tasks.spawn(async move {
            while let Some(Ok((mut here, _))) = stop.run_until_cancelled(listener.accept()).await {
                let stop = stop.clone();
                own.spawn(async move {
                    let carry = async {
                        if let Ok(mut there) = TcpStream::connect(to).await {
                            let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                        }
                    };
                    stop.run_until_cancelled(carry).await;
                });
            }
        });
    }
}
