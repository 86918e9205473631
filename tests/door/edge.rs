//! What the door writes into the log and the figures of who knocks: addresses, and no secrets.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request},
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::support::{House, SECRET, send};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn listen(&self) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
        let subscriber = || {
            tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .with_env_filter(EnvFilter::new("trace"))
                .with_writer(self.clone())
                .finish()
        };
        // while there is but one listener, what another test's thread meets first is not wanted anywhere: with a second
        // one, whom nobody tells anything, all of them are asked
        let second = tracing::Dispatch::new(subscriber());
        (tracing::subscriber::set_default(subscriber()), second)
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn the_log_names_the_client_whom_a_trusted_proxy_names() {
    let house = House::on_sqlite().await;
    let router =
        house.with(|config| config.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()]);
    let log = Log::default();
    let listening = log.listen();
    for peer in ["10.1.2.3:4000", "192.0.2.1:4000"] {
        let mut request = Request::get("/health")
            .header("x-forwarded-for", "198.51.100.1, 203.0.113.9")
            .body(Body::empty())
            .unwrap();
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        assert_eq!(send(&router, request).await.status, 200);
    }
    drop(listening);
    let text = log.text();
    let answered: Vec<&str> =
        text.lines().filter(|line| line.contains("request answered")).collect();
    assert_eq!(answered.len(), 2, "{text}");
    assert!(answered[0].contains(r#""client":"203.0.113.9""#), "{}", answered[0]);
    assert!(answered[1].contains(r#""client":"192.0.2.1""#), "{}", answered[1]);
    assert!(!text.contains("198.51.100.1"), "{text}");
    house.tear_down().await;
}

/// Whatever is asked, right or wrong, with everything logged that can be.
#[tokio::test]
async fn no_secret_stands_in_the_log_in_an_answer_or_among_the_figures() {
    let house = House::on_sqlite().await;
    let log = Log::default();
    let listening = log.listen();
    let good = house.token("u1");
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let link = "AAECAwQFBgcICQoLDA0ODw";
    let signed = "sig=c2lnbmVkLXNpZ25lZC1zaWduZWQ&exp=1800000900&user=u1";
    let asked = [
        (Method::GET, "/livekit-replay/me/quota".to_owned(), good.clone()),
        (Method::GET, "/livekit-replay/me/quota".to_owned(), forged.clone()),
        (Method::GET, format!("/livekit-replay/s/{link}"), String::new()),
        (Method::GET, format!("/livekit-replay/clips/nope/file?{signed}"), String::new()),
        (
            Method::GET,
            format!("/livekit-replay/sessions/nope/preview.m3u8?{signed}"),
            String::new(),
        ),
        (Method::GET, "/livekit-replay/admin/audit".to_owned(), good.clone()),
        (Method::POST, "/livekit-replay/capture".to_owned(), good.clone()),
    ];
    let mut answers = String::new();
    for (method, path, token) in asked {
        let answer = house.ask(method, &path, &token, None).await;
        answers += &format!("{:?}\n{}\n", answer.headers, answer.text);
    }
    answers += &house.get("/metrics", "").await.text;
    drop(listening);
    let text = log.text();
    assert!(text.lines().count() > 10, "the log was listened to: {text}");
    for place in [&text, &answers] {
        let signed = "c2lnbmVkLXNpZ25lZC1zaWduZWQ";
        for secret in [SECRET, "another-secret-of-more-than-32-bytes", signature, link, signed] {
            assert!(!place.contains(secret), "`{secret}` stands in {place}");
        }
        assert!(!place.contains(&good) && !place.contains(&forged));
    }
    house.tear_down().await;
}
