//! Webhooks made by hand, byte for byte as a LiveKit server makes them.

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{App, now_ms};

impl App {
    /// The token LiveKit sends with `body`: no more claims than these, valid for five minutes.
    pub fn signature(&self, body: &[u8]) -> String {
        let now = now_ms() / 1000;
        let sha256 = STANDARD.encode(Sha256::digest(body));
        let claims = json!({
            "iss": self.sim.api_key(), "exp": now + 300, "nbf": now, "iat": now, "sha256": sha256,
        });
        signed(self.sim.api_secret(), &claims)
    }

    /// Sends a webhook as LiveKit does and answers the status.
    pub async fn hook(&self, body: &str, authorization: Option<&str>) -> u16 {
        let mut request = self
            .http
            .post(format!("{}/webhooks/livekit", self.base))
            .header("user-agent", "LiveKit")
            .header("content-type", "application/webhook+json")
            .body(body.to_owned());
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        request.send().await.expect("an answer").status().as_u16()
    }

    /// Sends a webhook with its right signature, and waits until what it means was done.
    pub async fn good_hook(&self, body: &str) {
        let status = self.hook(body, Some(&self.signature(body.as_bytes()))).await;
        assert_eq!(status, 200, "{body}");
        self.until("the webhook was applied", async || self.deps.tasks.is_empty()).await;
    }
}

pub fn signed(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

/// A body with an id of its own.
pub fn with_id(body: &str) -> String {
    body.replace("EV_ID", &format!("EV_{}", uuid::Uuid::now_v7().simple()))
}
