//! `Idempotency-Key` as a header, and what routes that take one have in common. The rules are in `flow::idempotency`.

use std::future::Future;

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, request::Parts},
    response::Response,
};
use serde_json::Value;

use super::error::Problem;
use crate::{
    domain::id::UserId,
    error::{Error, Result},
    flow::{
        Deps,
        idempotency::{self, Claim},
    },
};

/// The request's header.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub Option<String>);

impl Key {
    /// What a user claims with this key on a route.
    pub fn claim(self, user: &UserId, route: &'static str) -> Option<Claim> {
        self.0.map(|key| Claim { user: user.clone(), route, key })
    }
}

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(HEADER).iter();
        let Some(key) = given.next() else { return Ok(Key(None)) };
        let key = key.to_str().ok().filter(|key| idempotency::is_valid_key(key));
        match (key, given.next()) {
            (Some(key), None) => Ok(Key(Some(key.to_owned()))),
            _ => Err(Problem(Error::invalid_field(
                "Idempotency-Key",
                "must be 1 to 255 visible ASCII characters, once",
            ))),
        }
    }
}

/// The hash of a JSON body by which repeats are told from other requests; the order of its members does not matter.
pub fn body_hash(body: &Value) -> String {
    blake3::hash(body.to_string().as_bytes()).to_hex().to_string()
}

/// Runs `work` in a task of its own: a caller who hangs up does not tear it apart.
pub(super) async fn finish<T, F>(deps: &Deps, work: F) -> Result<T>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let task = deps.tasks.spawn(work);
    task.await.map_err(|error| Error::internal("answering a request", error))?
}

/// Marks a repeated answer.
pub(super) fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::body_hash;

    #[test]
    fn the_order_of_members_makes_no_other_request_but_a_value_does() {
        let one: serde_json::Value = serde_json::from_str(r#"{"a":1,"b":[1,2]}"#).expect("valid");
        let two: serde_json::Value =
            serde_json::from_str(r#"{ "b": [1, 2], "a": 1 }"#).expect("valid");
        assert_eq!(body_hash(&one), body_hash(&two));
        assert_ne!(body_hash(&one), body_hash(&json!({"a": 1, "b": [2, 1]})));
    }
}
