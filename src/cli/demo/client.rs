//! The demo's side of the wire: what an app would send, and a line for everything that is waited for.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Person;
use crate::app::Failure;

/// Between two looks at something awaited.
const LOOK: Duration = Duration::from_secs(1);
/// A buffer that has not grown to its length by now will not.
const BUFFER_LIMIT: Duration = Duration::from_secs(180);
/// A clip of half a minute is done long before.
const CLIP_LIMIT: Duration = Duration::from_secs(120);

/// Speaks to the service as its users do.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub fn new(url: &str) -> Result<Client, Failure> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(90))
            .build()
            .map_err(|error| Failure::Failed(format!("making a client: {error}")))?;
        Ok(Client { http, base: format!("{url}{}", crate::http::BASE) })
    }

    fn request(&self, method: Method, person: &Person, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&person.token)
    }

    async fn ask(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Failure> {
        let lost = |error: reqwest::Error| Failure::Failed(format!("demo: {error}"));
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(lost)?;
        if status.is_success() {
            Ok((status, body))
        } else {
            Err(Failure::Failed(format!("demo: the service answered {status}: {body}")))
        }
    }

    /// Starts a person's buffer; answers the session's id.
    pub async fn start(
        &self,
        person: &Person,
        room: &str,
        community: &str,
    ) -> Result<String, Failure> {
        let body = json!({ "roomName": room, "communityId": community, "quality": "source" });
        let request = self.request(Method::POST, person, "/start").json(&body);
        let (_, session) = self.ask(request).await?;
        text(&session, "id")
    }

    async fn buffer(&self, person: &Person, session: &str) -> Result<(String, f64, u64), Failure> {
        let request = self.request(Method::GET, person, &format!("/sessions/{session}"));
        let (_, body) = self.ask(request).await?;
        let seconds = body["buffer"]["durationSeconds"].as_f64().unwrap_or(0.0);
        let segments = body["buffer"]["segments"].as_u64().unwrap_or(0);
        Ok((text(&body, "status")?, seconds, segments))
    }

    /// Waits until the buffer holds `seconds`.
    pub async fn wait_for_buffer(
        &self,
        person: &Person,
        session: &str,
        seconds: u32,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + BUFFER_LIMIT;
        let mut line = Line::new();
        loop {
            let (status, held, segments) = self.buffer(person, session).await?;
            line.show(&format!(
                "demo: waiting for {}'s buffer: {held:.0} of {seconds} s ({segments} segments, {status})",
                person.name
            ));
            if held >= f64::from(seconds) {
                line.end();
                return Ok(());
            }
            if Instant::now() >= deadline || status == "failed" {
                line.end();
                return Err(Failure::Failed(format!(
                    "demo: {}'s buffer holds {held:.0} s, not {seconds} s, and is {status}",
                    person.name
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Captures the last `seconds`; waits until the clip is ready.
    pub async fn capture(
        &self,
        person: &Person,
        session: &str,
        seconds: u32,
    ) -> Result<Value, Failure> {
        println!("demo: {} captures the last {seconds} s", person.name);
        let body = json!({ "sessionId": session, "durationSeconds": seconds, "title": format!("{}'s demo", person.name) });
        let begun = Instant::now();
        let request = self.request(Method::POST, person, "/capture").json(&body);
        let (mut status, mut clip) = self.ask(request).await?;
        let id = text(&clip, "clipId")?;
        let deadline = begun + CLIP_LIMIT;
        let mut line = Line::new();
        while status == StatusCode::ACCEPTED || clip["status"] == "processing" {
            line.show(&format!(
                "demo: waiting for the clip: {:.0} s",
                begun.elapsed().as_secs_f64()
            ));
            if Instant::now() >= deadline {
                line.end();
                return Err(Failure::Failed(format!("demo: clip {id} is still being made")));
            }
            tokio::time::sleep(LOOK).await;
            let request = self.request(Method::GET, person, &format!("/clips/{id}"));
            (status, clip) = self.ask(request).await?;
        }
        line.end();
        if clip["status"] != "ready" {
            return Err(Failure::Failed(format!("demo: the clip failed: {}", clip["error"])));
        }
        println!("demo: clip {id} is ready after {:.1} s", begun.elapsed().as_secs_f64());
        Ok(clip)
    }

    /// Fetches the file.
    pub async fn download(
        &self,
        person: &Person,
        clip: &Value,
        dir: &Path,
    ) -> Result<PathBuf, Failure> {
        let lost = |error: reqwest::Error| Failure::Failed(format!("demo: downloading: {error}"));
        let id = text(clip, "clipId")?;
        let request = self.request(Method::GET, person, &format!("/clips/{id}/file"));
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        let bytes = answer.map_err(lost)?.bytes().await.map_err(lost)?;
        let path = dir.join(format!("{}.mp4", person.name));
        tokio::fs::write(&path, &bytes).await.map_err(|error| {
            Failure::Failed(format!("demo: writing {}: {error}", path.display()))
        })?;
        Ok(path)
    }

    /// A line every few seconds, until the demo is ended.
    pub async fn show_status<'a>(
        &self,
        sessions: impl Iterator<Item = (&'a Person, &'a String)> + Clone,
    ) -> Result<(), Failure> {
        let mut line = Line::new();
        loop {
            let mut parts = Vec::new();
            for (person, session) in sessions.clone() {
                let (status, seconds, segments) = self.buffer(person, session).await?;
                parts.push(format!(
                    "{} {status}, {seconds:.0} s in {segments} segments",
                    person.name
                ));
            }
            line.show(&format!("demo: {}", parts.join("; ")));
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}

fn text(body: &Value, field: &str) -> Result<String, Failure> {
    body[field]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::Failed(format!("demo: the answer has no {field}: {body}")))
}

/// A line that is rewritten on a terminal, and repeated only now and then elsewhere.
struct Line {
    terminal: bool,
    shown: Option<Instant>,
}

impl Line {
    fn new() -> Line {
        Line { terminal: std::io::stdout().is_terminal(), shown: None }
    }

    fn show(&mut self, text: &str) {
        if self.terminal {
            print!("\r\u{1b}[K{text}");
            // a terminal that is gone is noticed by the next real line
            let _ = std::io::stdout().flush();
        } else if self.shown.is_none_or(|at| at.elapsed() >= Duration::from_secs(5)) {
            println!("{text}");
        } else {
            return;
        }
        self.shown = Some(Instant::now());
    }

    fn end(&mut self) {
        if self.terminal && self.shown.take().is_some() {
            println!();
        }
    }
}
