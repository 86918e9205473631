//! A reader of server-sent events as the HTML standard describes it: blocks, of which those without data only move the
//! place to resume from.

use std::time::Duration;

use serde_json::Value;

use crate::harness::App;

/// An event that arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub id: String,
    pub kind: String,
    pub body: Value,
}

pub struct Reader {
    answer: reqwest::Response,
    held: String,
    /// What a browser would send as `Last-Event-ID`.
    pub last: Option<String>,
    /// What it would wait before it comes again, milliseconds.
    pub retry: Option<u64>,
}

impl Reader {
    /// Opens `path` with that token; `last` as a browser sends it.
    pub async fn open(app: &App, token: Option<&str>, path: &str, last: Option<&str>) -> Reader {
        Reader::try_open(app, token, path, last).await.expect("a stream")
    }

    /// The same; or the status and body of the refusal.
    pub async fn try_open(
        app: &App,
        token: Option<&str>,
        path: &str,
        last: Option<&str>,
    ) -> Result<Reader, (u16, Value)> {
        let mut request = app.http.get(format!("{}{path}", app.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        if status != 200 {
            return Err((status, answer.json().await.unwrap_or(Value::Null)));
        }
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let last = last.map(str::to_owned);
        Ok(Reader { answer, held: String::new(), last, retry: None })
    }

    /// Of the caller's own events.
    pub async fn of(app: &App, user: &str, last: Option<&str>) -> Reader {
        Reader::open(app, Some(&app.token(user)), "/events", last).await
    }

    /// The next event; `None` when the stream ends. Fails after two minutes.
    pub async fn next(&mut self) -> Option<Received> {
        let waited = tokio::time::timeout(Duration::from_secs(120), self.read(false)).await;
        waited.expect("an event in two minutes").1
    }

    /// Waits until the place to resume from is known.
    pub async fn placed(&mut self) -> String {
        let waited = tokio::time::timeout(Duration::from_secs(60), self.read(true)).await;
        let (more, event) = waited.expect("a place in a minute");
        assert!(more && event.is_none(), "{event:?}");
        self.last.clone().expect("a place")
    }

    async fn read(&mut self, place: bool) -> (bool, Option<Received>) {
        loop {
            while let Some((block, rest)) = self.held.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.held = rest;
                let placed = block.lines().any(|line| line.starts_with("id: "));
                let event = self.take(&block);
                if event.is_some() || (place && placed) {
                    return (true, event);
                }
            }
            match self.answer.chunk().await {
                Ok(Some(bytes)) => {
                    self.held += std::str::from_utf8(&bytes).expect("whole characters in a chunk");
                }
                Ok(None) | Err(_) => return (false, None),
            }
        }
    }

    fn take(&mut self, block: &str) -> Option<Received> {
        let (mut kind, mut data) = (String::new(), String::new());
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => self.last = Some(id.to_owned()),
                Some(("event", name)) => kind = name.to_owned(),
                Some(("data", text)) => data = text.to_owned(),
                Some(("retry", text)) => self.retry = text.parse().ok(),
                Some(("", _)) => {}
                other => panic!("no line of a stream: {other:?} in {block:?}"),
            }
        }
        if data.is_empty() {
            return None;
        }
        let body: Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(body["type"], kind.as_str());
        if kind != "reset" {
            assert_eq!(body["id"].as_str(), self.last.as_deref());
        }
        Some(Received { id: body["id"].as_str().expect("an id").to_owned(), kind, body })
    }
}
