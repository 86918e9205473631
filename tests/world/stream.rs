//! A reader of server-sent events as the HTML standard describes it: blocks, of which those without data only move the
//! place to resume from.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::time::Duration;

use serde_json::Value;

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
    /// Reads what an answer streams; `last` is where it was asked to go on.
    pub fn over(answer: reqwest::Response, last: Option<&str>) -> Reader {
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let last = last.map(str::to_owned);
        Reader { answer, held: String::new(), last, retry: None }
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

    /// Reads on to the next event, or to the next place if that is enough; whether the stream goes on.
    pub async fn read(&mut self, place: bool) -> (bool, Option<Received>) {
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
