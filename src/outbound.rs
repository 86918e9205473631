//! What goes out to the app: one signed POST to an address that the configuration alone names, for a share ([`post`]) or
//! an event ([`tell`]). Signed in the Standard
//! Webhooks manner; redirects are not followed, no proxy of the environment is asked, and neither time nor the answer
//! is without bound.

use std::{sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::{
    config::{Share, Webhook},
    domain::time::Timestamp,
};

/// From the first packet to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The same for an event, which nobody waits for.
const TELLING: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MOST_ANSWERED: usize = 64 * 1024;

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// 2xx, with the JSON that came with it, if it was that.
    Taken(Option<Value>),
    /// 401 or 403.
    Refused,
    /// Anything else; for the log, not for the caller.
    Failed(String),
}

/// Delivers `body` once. `id` names the delivery, so that the app can tell a repeat from another.
pub async fn post(to: &Share, id: &str, body: &Value, now: Timestamp) -> Outcome {
    match tokio::time::timeout(DEADLINE, attempt(to, id, body, now)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(plain(error)),
        Err(_) => Outcome::Failed("no answer in time".to_owned()),
    }
}

async fn attempt(
    to: &Share,
    id: &str,
    body: &Value,
    now: Timestamp,
) -> Result<Outcome, reqwest::Error> {
    let client = match &*CLIENT {
        Ok(client) => client,
        Err(fault) => return Ok(Outcome::Failed(fault.clone())),
    };
    let request = signed(client, &to.url, &to.signing_key(), id, body.to_string(), now);
    let mut answer = request.send().await?;
    match answer.status().as_u16() {
        200..=299 => {}
        401 | 403 => return Ok(Outcome::Refused),
        status => return Ok(Outcome::Failed(format!("answered {status}"))),
    }
    let mut bytes = Vec::new();
    while let Some(some) = answer.chunk().await? {
        bytes.extend_from_slice(&some);
        if bytes.len() > MOST_ANSWERED {
            return Ok(Outcome::Failed("answered more than 64 KiB".to_owned()));
        }
    }
    Ok(Outcome::Taken(serde_json::from_slice(&bytes).ok()))
}

/// A signed request.
fn signed(
    client: &reqwest::Client,
    url: &str,
    key: &[u8],
    id: &str,
    body: String,
    now: Timestamp,
) -> reqwest::RequestBuilder {
    let seconds = now.as_micros().div_euclid(1_000_000);
    client
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signature(key, id, seconds, &body))
        .body(body)
}

/// How telling an event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Why there was none, for operators.
    pub fault: Option<String>,
}

impl Told {
    /// Whether the receiver took it.
    pub fn is_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// Tells an endpoint of an event, once. What it answers besides the status is not read.
pub async fn tell(to: &Webhook, id: &str, body: String, now: Timestamp) -> Told {
    let failed = |fault: String| Told { status: None, retry_after: None, fault: Some(fault) };
    let client = match &*CLIENT {
        Ok(client) => client,
        Err(fault) => return failed(fault.clone()),
    };
    let request = signed(client, &to.url, &to.signing_key(), id, body, now);
    match tokio::time::timeout(TELLING, request.send()).await {
        Ok(Ok(answer)) => {
            let wished = answer.headers().get("retry-after");
            let wished = wished.and_then(|value| value.to_str().ok());
            Told {
                status: Some(answer.status().as_u16()),
                retry_after: wished.and_then(|text| pause_of(text, now)),
                fault: None,
            }
        }
        Ok(Err(error)) => failed(plain(error)),
        Err(_) => failed("no answer in time".to_owned()),
    }
}

/// `Retry-After`: seconds, or a date of HTTP.
fn pause_of(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    Some(Timestamp::from_micros(at.timestamp_micros()).since(now))
}

/// `v1,<base64>` over id, time and body.
fn signature(key: &[u8], id: &str, seconds: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body.as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// One client for all deliveries; they are rare, so no connection is kept.
static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .user_agent(concat!("livekit-replay/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(plain)
});

/// Without the address, which may hold a secret of the operator's.
fn plain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_signature_is_the_standards() {
        let to = Share {
            url: String::new(),
            secret: SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        };
        let body = r#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = signature(&to.signing_key(), id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_receiver_says_in_seconds_or_by_a_date_when_it_wants_to_be_asked_again() {
        let now = Timestamp::parse_rfc3339("2026-11-20T10:00:00.000Z").expect("a time");
        assert_eq!(pause_of("120", now), Some(Duration::from_secs(120)));
        let date = "Fri, 20 Nov 2026 10:01:00 GMT";
        assert_eq!(pause_of(date, now), Some(Duration::from_secs(60)));
        assert_eq!(pause_of("Fri, 20 Nov 2026 09:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(pause_of("soon", now), None);
    }
}
