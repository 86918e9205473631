//! How a command reaches the administrators' API: through the control socket of a running service, or, when no
//! service holds the lock, through the same router inside its own process. One implementation either way.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Method, Request, header};
use serde_json::Value;
use tower::ServiceExt;

use crate::{
    app::{self, Database, Failure, control, lock},
    clock::SharedClock,
    config::Config,
    flow::Deps,
};

/// A service that says nothing for this long is taken for hung.
const SILENCE: Duration = Duration::from_secs(5);
/// What one call may take: starting a maintenance job by hand runs it to its end.
const CALL: Duration = Duration::from_secs(600);
/// The largest answer a command reads.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The way to the API.
pub(super) enum Reach {
    /// A running service.
    Socket(reqwest::Client),
    /// This process, holding shared locks.
    Here { router: Router, deps: Box<Deps>, _locks: lock::Locks },
}

/// One question.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub method: Method,
    /// Segments of the path below the API's base.
    pub path: Vec<String>,
    pub query: Vec<(&'static str, String)>,
    pub body: Option<Value>,
    /// Asks as this user.
    pub as_user: Option<String>,
}

impl Reach {
    /// Finds the way.
    pub async fn find(config: Config, clock: SharedClock) -> Result<Reach, Failure> {
        match lock::share(&config)? {
            Ok(locks) => {
                let deps = app::build(config, Arc::clone(&clock), Database::Find).await?;
                let state = app::operators_state(&deps);
                let router = control::as_operator(crate::http::router(state), clock);
                Ok(Reach::Here { router, deps: Box::new(deps), _locks: locks })
            }
            Err(pid) => socket(&config, &pid).await.map(Reach::Socket),
        }
    }

    /// Asks; an answer that is no success becomes a failure with its detail.
    pub async fn call(&self, call: &Call) -> Result<Value, Failure> {
        let url = address(call)?;
        let body = call.body.as_ref().map(ToString::to_string);
        let as_user = call.as_user.as_ref().map(hex::encode);
        let (status, bytes) = match self {
            Reach::Socket(client) => {
                let mut request = client.request(call.method.clone(), url);
                if let Some(body) = body {
                    request = request.header(header::CONTENT_TYPE, "application/json").body(body);
                }
                if let Some(user) = as_user {
                    request = request.header(control::AS_USER, user);
                }
                let answer = request.send().await.map_err(lost)?;
                let status = answer.status();
                (status, answer.bytes().await.map_err(lost)?)
            }
            Reach::Here { router, .. } => {
                let target = match url.query() {
                    Some(query) => format!("{}?{query}", url.path()),
                    None => url.path().to_owned(),
                };
                let mut request = Request::builder().method(call.method.clone()).uri(target);
                if body.is_some() {
                    request = request.header(header::CONTENT_TYPE, "application/json");
                }
                if let Some(user) = as_user {
                    request = request.header(control::AS_USER, user);
                }
                let request = request
                    .body(body.map_or_else(Body::empty, Body::from))
                    .map_err(|error| Failure::Failed(format!("making the request: {error}")))?;
                let answer = match router.clone().oneshot(request).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                };
                let status = answer.status();
                let bytes = axum::body::to_bytes(answer.into_body(), ANSWER_BYTES)
                    .await
                    .map_err(|error| Failure::Failed(format!("reading the answer: {error}")))?;
                (status, bytes)
            }
        };
        read(status, &bytes)
    }

    /// Ends what was started here: work that outlives a request is awaited, the database closed.
    pub async fn close(self) -> Result<(), Failure> {
        if let Reach::Here { deps, .. } = self {
            deps.stop.cancel();
            deps.tasks.close();
            let limit = deps.config.server.shutdown;
            let ended = tokio::time::timeout(limit, deps.tasks.wait()).await;
            deps.db.close().await?;
            if ended.is_err() {
                return Err(Failure::Failed("some work did not end in time".to_owned()));
            }
        }
        Ok(())
    }
}

fn lost(error: reqwest::Error) -> Failure {
    Failure::Failed(format!("the service did not answer: {error}"))
}

async fn socket(config: &Config, pid: &str) -> Result<reqwest::Client, Failure> {
    let path = control::path(config);
    let silent = || {
        Failure::Failed(format!(
            "livekit-replay (pid {pid}) is running but does not answer on {} within {} s",
            path.display(),
            SILENCE.as_secs()
        ))
    };
    let client = reqwest::Client::builder()
        .unix_socket(path.as_path())
        .timeout(CALL)
        .build()
        .map_err(|error| Failure::Failed(format!("making a client: {error}")))?;
    let deadline = tokio::time::Instant::now() + SILENCE;
    // the service may be between taking its lock and opening its socket
    loop {
        let asked = client.get("http://localhost/livekit-replay/me/permissions").send();
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(_)) => return Ok(client),
            Ok(Err(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            _ => return Err(silent()),
        }
    }
}

fn address(call: &Call) -> Result<reqwest::Url, Failure> {
    let mut url = reqwest::Url::parse(&format!("http://localhost{}", crate::http::BASE))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    if let Some(odd) =
        call.path.iter().find(|part| part.is_empty() || *part == "." || *part == "..")
    {
        return Err(Failure::Setup(format!("{odd:?} is no name")));
    }
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend(&call.path);
    }
    if !call.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&call.query);
    }
    Ok(url)
}

fn read(status: http::StatusCode, bytes: &[u8]) -> Result<Value, Failure> {
    let value: Value = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(bytes).map_err(|error| {
            Failure::Failed(format!("the answer ({status}) is not JSON: {error}"))
        })?
    };
    if status.is_success() {
        return Ok(value);
    }
    let code = value["code"].as_str().unwrap_or("no code");
    let detail = value["detail"].as_str().unwrap_or("no detail");
    Err(Failure::Failed(format!("{detail} ({code})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &[&str]) -> Call {
        Call {
            method: Method::GET,
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            query: vec![("communityId", "a&b".to_owned())],
            body: None,
            as_user: None,
        }
    }

    #[test]
    fn names_stay_inside_their_segment() {
        let url = address(&call(&["admin", "users", "a/b?c#d%2F ü", "quota"])).expect("an address");
        assert_eq!(
            url.as_str(),
            "http://localhost/livekit-replay/admin/users/a%2Fb%3Fc%23d%252F%20%C3%BC/quota?communityId=a%26b"
        );
        assert!(address(&call(&["clips", ".."])).is_err());
        assert!(address(&call(&["clips", ""])).is_err());
    }

    #[test]
    fn a_refusal_is_told_by_its_detail_and_code() {
        let body = br#"{"code":"not_found","detail":"There is no such clip."}"#;
        let failure = read(http::StatusCode::NOT_FOUND, body).expect_err("a refusal");
        assert_eq!(failure.to_string(), "There is no such clip. (not_found)");
        assert_eq!(failure.exit_code(), 1);
    }
}
