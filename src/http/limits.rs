//! Rate limits at the door. [`limited`] puts a layer on a route: it authenticates, counts, refuses, and puts
//! `RateLimit-*` on every answer.
//!
//! A request with an `Idempotency-Key` is not counted in front, because only the handler learns whether it is the
//! first of its key: it calls [`Allowance::spend`] when it has claimed the key. What nobody counted is counted
//! afterwards unless the answer is marked as a repeat, so a key is no way around the limit.

use std::sync::{Arc, Mutex};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use utoipa_axum::router::OpenApiRouter;

use super::{AppState, error::Problem, idempotency};
use crate::{
    access::Caller,
    domain::{id::UserId, limits::Rate},
    error::{Error, Result},
    flow::{Deps, rate_limit},
};

pub use crate::flow::rate_limit::Limited;

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

/// The layer: limits the requests of the limit's method, lets others pass.
async fn layer(
    State((state, what)): State<(AppState, Limited)>,
    request: Request,
    next: Next,
) -> Response {
    if request.method() != method_of(what) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let caller =
        <Caller as FromRequestParts<AppState>>::from_request_parts(&mut parts, &state).await;
    let caller = match caller {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let allowance =
        Allowance { deps: state.deps, user: caller.user_id, what, spent: Arc::default() };
    let keyed = takes_keys(what) && parts.headers.contains_key(idempotency::HEADER);
    if !keyed && let Err(error) = allowance.spend().await {
        return with_headers(Problem(error).into_response(), &allowance).await;
    }
    parts.extensions.insert(allowance.clone());
    let response = next.run(Request::from_parts(parts, body)).await;
    let repeat = response.headers().contains_key(idempotency::REPLAYED);
    // what was done already is not undone by a limit: only later requests feel this count
    if !repeat && let Err(error) = allowance.spend().await {
        tracing::debug!(error = error.chain(), "counted after the fact");
    }
    with_headers(response, &allowance).await
}

fn method_of(what: Limited) -> Method {
    match what {
        Limited::Start | Limited::Capture => Method::POST,
        Limited::Delete => Method::DELETE,
    }
}

/// Whether the handlers under this limit know idempotency keys. Elsewhere a key means nothing, and must not be a way
/// around the limit.
fn takes_keys(what: Limited) -> bool {
    match what {
        Limited::Start | Limited::Capture => true,
        Limited::Delete => false,
    }
}

/// Puts a limit on the routes of `router`: on their POST for starts and captures, on their DELETE for deletions.
pub fn limited(
    router: OpenApiRouter<AppState>,
    state: &AppState,
    what: Limited,
) -> OpenApiRouter<AppState> {
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
