//! Rate limits at the door. [`layer`] goes on a limited route: it authenticates, counts, refuses, and puts
//! `RateLimit-*` on every answer.
//!
//! A request with an `Idempotency-Key` is not counted by the layer, because only the handler learns whether it is the
//! first of its key: it calls [`Allowance::spend`] when it has claimed the key. Whatever fails without having been
//! counted is counted afterwards, so a key is no way around the limit.

use std::sync::{Arc, Mutex};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{AppState, error::Problem};
use crate::{
    access::Caller,
    domain::id::UserId,
    error::{Error, Result},
    flow::{
        Deps,
        rate_limit::{self, Rate},
    },
};

pub use crate::flow::rate_limit::Limited;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What the handler of a limited route spends.
#[derive(Debug, Clone)]
pub struct Allowance {
    deps: Deps,
    user: UserId,
    what: Limited,
    /// Set by the first spending.
    spent: Arc<Mutex<Option<Spent>>>,
}

#[derive(Debug, Clone, Copy)]
struct Spent(Option<Rate>);

impl Allowance {
    /// Counts this request, once however often it is called. A handler calls it where the layer did not: after its
    /// idempotency key turned out to be a new one.
    ///
    /// # Errors
    /// [`crate::error::Code::RateLimited`].
    pub async fn spend(&self) -> Result<()> {
        if self.spent().is_some() {
            return Ok(());
        }
        let rate = rate_limit::count(&self.deps, &self.user, self.what).await?;
        *self.lock() = Some(Spent(rate));
        rate.map_or(Ok(()), |rate| rate.check())
    }

    fn spent(&self) -> Option<Spent> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Spent>> {
        self.spent.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl<S: Sync> FromRequestParts<S> for Allowance {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Allowance>().cloned().ok_or_else(|| {
            Problem(Error::internal("reading a rate limit", "the route has no limit's layer"))
        })
    }
}

/// Limits a route: `routes!(start).map(|r| r.layer(from_fn_with_state((state, Limited::Start), limits::layer)))`, or
/// shorter [`limited`].
pub async fn layer(
    State((state, what)): State<(AppState, Limited)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller =
        <Caller as FromRequestParts<AppState>>::from_request_parts(&mut parts, &state).await;
    let caller = match caller {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let allowance =
        Allowance { deps: state.deps, user: caller.user_id, what, spent: Arc::default() };
    let keyed = parts.headers.contains_key(IDEMPOTENCY_KEY);
    if !keyed && let Err(error) = allowance.spend().await {
        return with_headers(Problem(error).into_response(), &allowance).await;
    }
    parts.extensions.insert(allowance.clone());
    let response = next.run(Request::from_parts(parts, body)).await;
    let failed = response.status().is_client_error() || response.status().is_server_error();
    if failed
        && allowance.spent().is_none()
        && let Err(error) = allowance.spend().await
    {
        return with_headers(Problem(error).into_response(), &allowance).await;
    }
    with_headers(response, &allowance).await
}

/// Puts the limit on every route of `router`.
pub fn limited(
    router: utoipa_axum::router::OpenApiRouter<AppState>,
    state: &AppState,
    what: Limited,
) -> utoipa_axum::router::OpenApiRouter<AppState> {
    router.layer(axum::middleware::from_fn_with_state((state.clone(), what), layer))
}

async fn with_headers(mut response: Response, allowance: &Allowance) -> Response {
    let rate = match allowance.spent() {
        Some(Spent(rate)) => Ok(rate),
        None => rate_limit::peek(&allowance.deps, &allowance.user, allowance.what).await,
    };
    match rate {
        Ok(Some(rate)) => write(response.headers_mut(), &rate),
        Ok(None) => {}
        Err(error) => tracing::debug!(error = error.chain(), "a rate limit could not be read"),
    }
    response
}

fn write(headers: &mut HeaderMap, rate: &Rate) {
    for (name, value) in [
        ("ratelimit-limit", u64::from(rate.limit)),
        ("ratelimit-remaining", u64::from(rate.remaining())),
        ("ratelimit-reset", rate.reset_seconds),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}
