//! The app's end of a delivery: an HTTP server on the loopback that answers as it is told and keeps what arrived.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::Notify;

/// The bytes behind [`SECRET`].
const KEY: &[u8] = b"the key of the app's deliveries!";

/// How the app answers one delivery.
#[derive(Debug, Clone)]
pub enum Says {
    /// 200 with that body.
    Yes(String),
    Status(u16),
    /// 302 to itself.
    Elsewhere,
    /// Nothing, ever.
    Nothing,
    /// As without being told, once the test has done what it has to do meanwhile.
    Later(Arc<Notify>),
    /// 200, and then as many bytes as are read.
    Endless,
}

/// A delivery that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Arrived {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The address in it.
    pub fn link(&self) -> String {
        self.json()["data"]["url"].as_str().expect("an address").to_owned()
    }

    /// Checks the signature as an app does.
    pub fn is_signed(&self) -> bool {
        let header = |name: &str| self.headers[name].to_str().expect("text").to_owned();
        let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("a key");
        mac.update(format!("{id}.{at}.{}", self.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        header("webhook-signature") == expected
    }
}

#[derive(Debug, Default)]
struct Kept {
    answers: VecDeque<Says>,
    arrived: Vec<Arrived>,
}

/// The running server.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub url: String,
    kept: Arc<Mutex<Kept>>,
}

/// The secret as an operator writes it.
pub fn secret() -> String {
    format!("whsec_{}", STANDARD.encode(KEY))
}

impl Receiver {
    pub async fn start() -> Receiver {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/deliveries", listener.local_addr().expect("bound"));
        let kept = Arc::new(Mutex::new(Kept::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&kept));
        // goes with the test's runtime
        tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
        Receiver { url, kept }
    }

    /// What the next delivery is answered; without one, 200 with a message's name.
    pub fn next(&self, says: Says) {
        self.kept.lock().expect("whole").answers.push_back(says);
    }

    /// Has the next delivery wait for an answer until what is given back is notified.
    pub fn hold(&self) -> Arc<Notify> {
        let now = Arc::new(Notify::new());
        self.next(Says::Later(Arc::clone(&now)));
        now
    }

    /// How many arrived since the last look.
    pub fn count(&self) -> usize {
        self.kept.lock().expect("whole").arrived.len()
    }

    /// What arrived since the last look.
    pub fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.kept.lock().expect("whole").arrived)
    }
}

fn yes() -> String {
    json!({ "messageId": "m-1" }).to_string()
}

async fn answer(State(kept): State<Arc<Mutex<Kept>>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let arrived = Arrived {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("text"),
    };
    let says = {
        let mut kept = kept.lock().expect("whole");
        kept.arrived.push(arrived);
        kept.answers.pop_front()
    };
    match says.unwrap_or_else(|| Says::Yes(yes())) {
        Says::Yes(body) => body.into_response(),
        Says::Status(status) => StatusCode::from_u16(status).expect("a status").into_response(),
        Says::Elsewhere => (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        Says::Nothing => std::future::pending().await,
        Says::Later(now) => {
            now.notified().await;
            yes().into_response()
        }
        Says::Endless => {
            let bytes = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 8192]));
            Body::from_stream(bytes).into_response()
        }
    }
}
