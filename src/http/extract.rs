//! What handlers take from a request, with our problems instead of axum's rejections: [`Caller`], [`Body`],
//! [`Query`], [`Path`], [`Arrived`].

use axum::{
    extract::{
        FromRequest, FromRequestParts, OptionalFromRequestParts, Request, rejection::BytesRejection,
    },
    http::{HeaderMap, header, request::Parts},
    response::IntoResponse,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::{
    AppState,
    error::{self, Problem},
    idempotency::body_hash,
};
use crate::{
    access::{Caller, token},
    domain::time::Timestamp,
    error::{Code, Error, Result},
};

/// The moment the request arrived, taken by the outermost layer: what "last N" ends at.
#[derive(Debug, Clone, Copy)]
pub struct Arrived(pub Timestamp);

impl<S: Sync> FromRequestParts<S> for Arrived {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Arrived>().copied().ok_or_else(|| {
            Problem(Error::internal("reading the time of arrival", "the layer is missing"))
        })
    }
}

/// The id of the request, for rows and logs.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(RequestId(request_id(parts).unwrap_or_default()))
    }
}

fn request_id(parts: &Parts) -> Option<String> {
    let id = parts.extensions.get::<tower_http::request_id::RequestId>()?;
    id.header_value().to_str().ok().map(ToOwned::to_owned)
}

/// Who calls, by `Authorization: Bearer`. A door that knows its caller by other means (the control socket) puts a
/// [`Caller`] into the request's extensions, which is then believed.
impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let known = parts.extensions.get::<Caller>().cloned();
        if let Some(known) = &known
            && known.origin.request_id.is_some()
        {
            return Ok(known.clone());
        }
        let mut caller = match known {
            Some(known) => known,
            None => authenticate(&parts.headers, state).await?,
        };
        caller.origin.request_id = request_id(parts);
        // a layer in front and the handler behind it check the token once
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// `None` without credentials; bad ones are refused all the same.
impl OptionalFromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<Option<Self>, Problem> {
        let known = parts.extensions.get::<Caller>().is_some();
        if !known && !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        <Caller as FromRequestParts<AppState>>::from_request_parts(parts, state).await.map(Some)
    }
}

async fn authenticate(headers: &HeaderMap, state: &AppState) -> Result<Caller> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(token::refusal(token::Reason::Missing));
    };
    // two of them: a proxy may have checked one and we the other
    if values.next().is_some() {
        return Err(token::refusal(token::Reason::Malformed));
    }
    let bearer = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| token::refusal(token::Reason::Malformed))?;
    state.verifier.verify(bearer, state.deps.clock.now()).await
}

/// A JSON body of exactly this shape. Give `T` `#[serde(deny_unknown_fields)]`: an unknown field is then refused
/// by name.
#[derive(Debug, Clone, Copy)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Ok(Body(parse_json(&json_bytes(request, state).await?)?))
    }
}

/// [`Body`], and a hash by which a repeat is told from another request; the order of members does not matter.
#[derive(Debug, Clone)]
pub struct HashedBody<T>(pub T, pub String);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for HashedBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = json_bytes(request, state).await?;
        // the shape first: it refuses doubled members, of which a value keeps one
        let body = parse_json(&bytes)?;
        Ok(HashedBody(body, body_hash(&parse_json(&bytes)?)))
    }
}

async fn json_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem(error::unsupported_media_type()));
    }
    Bytes::from_request(request, state).await.map_err(bytes_problem)
}

/// Reads a JSON body that was taken as bytes (its hash is needed, or it may be absent).
///
/// # Errors
/// [`Code::ValidationFailed`] naming the field.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // a shape would also take a list of its members' values
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Error::invalid_field("body", "must be a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| shape_error(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| shape_error(".", &error))?;
    Ok(value)
}

/// Which failure of reading a body this is.
pub fn bytes_problem(rejection: BytesRejection) -> Problem {
    let status = rejection.into_response().status();
    if status == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        Problem(error::too_large())
    } else {
        Problem(Error::new(Code::ValidationFailed, "The body broke off."))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).map(str::trim).unwrap_or_default();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn shape_error(path: &str, error: &serde_json::Error) -> Error {
    let message = error.to_string();
    if error.is_syntax() || error.is_eof() {
        return Error::invalid_field("body", format!("is not JSON: {message}"));
    }
    Error::invalid_field(&field_of(path, &message), message)
}

/// The path leads to a key that is unknown, but only to the parent of one that is missing or doubled; that one's name
/// stands in serde's text alone.
fn field_of(path: &str, message: &str) -> String {
    let named = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    match (named, path) {
        (Some(name), "." | "") => name.to_owned(),
        (Some(name), path) => format!("{path}.{name}"),
        (None, "." | "") => "body".to_owned(),
        (None, path) => path.to_owned(),
    }
}

/// The parameters of a signed link, for the document; read as `flow::links::SignedQuery`.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct Signed {
    /// Of a signed link: when it expires, Unix seconds. Links are taken as they were handed out, all parts together.
    e: Option<i64>,
    /// Of a signed link: whom it speaks for, base64.
    u: Option<String>,
    /// Of a signed link: when the token that showed the membership was issued, Unix microseconds.
    m: Option<i64>,
    /// Of a signed link: the signature, base64. With it no token is needed.
    s: Option<String>,
}

/// The query of the address.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Query(value))
            .map_err(|rejection| Problem(Error::invalid_field("query", rejection.body_text())))
    }
}

/// The variable parts of the address. What does not fit is not there.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Path(value))
            .map_err(|rejection| Problem(Error::not_found("address").because(rejection)))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Shape {
        #[expect(dead_code, reason = "only its reading is tested")]
        room_name: String,
        #[expect(dead_code, reason = "only its reading is tested")]
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its reading is tested")]
        count: u8,
    }

    fn field(json: &str) -> String {
        let error = parse_json::<Shape>(json.as_bytes()).expect_err("must be refused");
        assert_eq!(error.code(), Code::ValidationFailed);
        error.fields()["errors"][0]["field"].as_str().expect("a field is named").to_owned()
    }

    #[test]
    fn the_field_that_does_not_fit_is_named() {
        assert_eq!(field(r#"{"roomName":"a","zap":1}"#), "zap");
        assert_eq!(field(r#"{"roomName":"a","a`, expected b":1}"#), "a`, expected b");
        assert_eq!(field("{}"), "roomName");
        assert_eq!(field(r#"{"roomName":5}"#), "roomName");
        assert_eq!(field(r#"{"roomName":"a","roomName":"b"}"#), "roomName");
        assert_eq!(field(r#"{"roomName":"a","inner":{"count":300}}"#), "inner.count");
        assert_eq!(field(r#"{"roomName":"a","inner":{"zap":1}}"#), "inner.zap");
        assert_eq!(field(r#"{"roomName":"a","inner":{}}"#), "inner.count");
    }

    #[test]
    fn what_is_not_json_is_refused_as_a_whole() {
        assert_eq!(field(""), "body");
        assert_eq!(field("{"), "body");
        assert_eq!(field(r#"{"roomName":"a"} trailing"#), "body");
        assert_eq!(field("[]"), "body");
        assert_eq!(field(r#" ["a"]"#), "body");
    }
}
