//! What goes out to the app: one signed POST to an address that the configuration alone names. Signed in the Standard
//! Webhooks manner; redirects are not followed, no proxy of the environment is asked, and neither time nor the answer
//! is without bound.

use std::{sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::{config::Share, domain::time::Timestamp};

/// From the first packet to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
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
    let body = body.to_string();
    let seconds = now.as_micros().div_euclid(1_000_000);
    let mut answer = client
        .post(&to.url)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", signature(&to.signing_key(), id, seconds, &body))
        .body(body)
        .send()
        .await?;
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
}
