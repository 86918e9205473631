//! Streams of events, opened of an [`App`].

use serde_json::Value;

use crate::harness::App;

#[path = "../world/stream.rs"]
mod stream;

pub use stream::{Reader, Received};

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
        Ok(Reader::over(answer, last))
    }

    /// Of the caller's own events.
    pub async fn of(app: &App, user: &str, last: Option<&str>) -> Reader {
        Reader::open(app, Some(&app.token(user)), "/events", last).await
    }
}
