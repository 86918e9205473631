//! A sign-in service that publishes keys on this machine, in every state such a thing gets into.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode, Uri},
};
use livekit_replay::config::Jwks;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// How it answers.
#[derive(Clone)]
pub enum Answer {
    Keys(Value),
    Text(StatusCode, String),
    RedirectTo(String),
    /// Begins a body and never ends it.
    Endless,
    /// The keys, once the gate is open.
    Gated(Value, watch::Receiver<bool>),
}

#[derive(Clone)]
struct Shared {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<watch::Sender<Vec<String>>>,
}

pub struct Publisher {
    address: SocketAddr,
    shared: Shared,
    serving: Option<JoinHandle<()>>,
}

impl Publisher {
    pub async fn start(answer: Answer) -> Publisher {
        let shared = Shared {
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::new(watch::channel(Vec::new()).0),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut publisher = Publisher { address, shared, serving: None };
        publisher.serve(listener);
        publisher
    }

    fn serve(&mut self, listener: TcpListener) {
        let router = Router::new().fallback(answer).with_state(self.shared.clone());
        self.serving =
            Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys.json?of=us", self.address)
    }

    pub fn jwks(&self) -> Jwks {
        Jwks::Url(self.url())
    }

    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Every address it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.borrow().clone()
    }

    /// Waits until it was asked this often.
    pub async fn asked_times(&self, times: usize) {
        let mut asked = self.shared.asked.subscribe();
        asked.wait_for(|asked| asked.len() >= times).await.unwrap();
    }

    /// Nobody listens on its port any more.
    pub async fn down(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    /// Listens on its port again.
    pub async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn answer(State(shared): State<Shared>, uri: Uri) -> Response<Body> {
    shared.asked.send_modify(|asked| asked.push(uri.to_string()));
    let answer = shared.answer.lock().unwrap().clone();
    let (status, body) = match answer {
        Answer::Keys(keys) => (StatusCode::OK, Body::from(keys.to_string())),
        Answer::Text(status, text) => (status, Body::from(text)),
        Answer::RedirectTo(url) => {
            return Response::builder()
                .status(StatusCode::FOUND)
                .header("location", url)
                .body(Body::empty())
                .unwrap();
        }
        Answer::Endless => {
            use futures::StreamExt;
            let begin = futures::stream::once(async { Ok::<_, std::io::Error>("{\"keys\":[") });
            (StatusCode::OK, Body::from_stream(begin.chain(futures::stream::pending())))
        }
        Answer::Gated(keys, mut gate) => {
            gate.wait_for(|open| *open).await.unwrap();
            (StatusCode::OK, Body::from(keys.to_string()))
        }
    };
    Response::builder().status(status).body(body).unwrap()
}
