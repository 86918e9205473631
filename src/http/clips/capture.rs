//! POST /capture and POST /clips/{id}/retry: accepted, then waited for as long as the caller likes.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    shape::{self, ClipBody},
    shares,
};
use crate::{
    access::Caller,
    domain::{
        id::{ClipId, SessionId},
        lifecycle::ClipStatus,
        time::Timestamp,
        window::{Precision, WindowRequest},
    },
    error::{Code, Error, Result},
    flow::{
        capture::{self, Accepted, Clip, GapPolicy, Repeat, Visibility},
        idempotency::{self, Begun, Claim, Held},
        library,
        shares::{Destination, Order},
        trim,
    },
    http::{
        AppState,
        error::{Answer, Problem},
        extract::{Arrived, HashedBody, Path, RequestId},
        idempotency::{Key, body_hash, finish, replayed},
        limits::Allowance,
    },
};

/// The route in the scope of an `Idempotency-Key`.
const ROUTE: &str = "POST /capture";
/// The same for trims.
const TRIM_ROUTE: &str = "POST /clips/{id}/trim";
/// Accepting takes well under a second; a first request that has not accepted by then is dead.
const ACCEPT_LEASE: Duration = Duration::from_secs(30);
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A capture: exactly one form of window.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct CaptureBody {
    session_id: String,
    /// The last N minutes, 1 to the buffer's length.
    duration_minutes: Option<f64>,
    /// The last N seconds.
    duration_seconds: Option<f64>,
    /// Start of an explicit window.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// End of an explicit window, up to 60 s ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Start, counted from the session's `startedAt`.
    start_seconds: Option<f64>,
    /// End, counted from the session's `startedAt`.
    end_seconds: Option<f64>,
    /// Extends the end, 0 to 60.
    post_seconds: Option<f64>,
    /// `keyframe` (default for "the last N") or `exact` (default for the explicit forms).
    #[schema(value_type = Option<String>)]
    precision: Option<Precision>,
    /// `skip` (default) or `refuse`.
    #[schema(value_type = Option<String>)]
    gap_policy: Option<GapPolicy>,
    /// Up to 200 characters.
    title: Option<String>,
    /// `private` (default), `community`, `public`, `unlisted`.
    #[schema(value_type = Option<String>)]
    visibility: Option<Visibility>,
    /// Share it when it is ready: `link`, or `dm` and `channel` where the service has an address to deliver to.
    #[schema(value_type = Option<String>)]
    share_option: Option<Destination>,
    /// For `channel`.
    target_channel_id: Option<String>,
    /// For `dm`.
    target_user_id: Option<String>,
}

impl CaptureBody {
    fn into_request(mut self, held: Option<Held>, request_id: String) -> Result<capture::Request> {
        let share = self.take_order()?;
        Ok(capture::Request {
            session_id: SessionId::new(self.session_id),
            window: WindowRequest {
                duration_minutes: self.duration_minutes,
                duration_seconds: self.duration_seconds,
                from: self.from,
                to: self.to,
                start_seconds: self.start_seconds,
                end_seconds: self.end_seconds,
                post_seconds: self.post_seconds,
                precision: self.precision,
            },
            gap_policy: self.gap_policy.unwrap_or(GapPolicy::Skip),
            title: self.title,
            visibility: self.visibility,
            held,
            request_id: Some(request_id),
            share,
        })
    }

    fn take_order(&mut self) -> Result<Option<Order>> {
        let (channel, user) = (self.target_channel_id.take(), self.target_user_id.take());
        let Some(option) = self.share_option else {
            let given = [("targetChannelId", channel), ("targetUserId", user)];
            return match given.into_iter().find(|(_, target)| target.is_some()) {
                Some((field, _)) => Err(Error::invalid_field(field, "needs a shareOption")),
                None => Ok(None),
            };
        };
        shares::order(option, channel, user, None).map(Some)
    }
}

/// Makes a clip of a part of the caller's buffer.
#[utoipa::path(
    post, path = "/capture", tag = "clips", request_body = CaptureBody,
    params(
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=<seconds>`"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    security(("bearer" = [])),
    responses(
        (status = 201, description = "The clip is ready", body = ClipBody),
        (status = 202, description = "The clip is being made; see Location", body = ClipBody),
        (status = 403, description = "`not_owner`, `permission_denied`"),
        (status = 404, description = "`not_found`, `no_segments_in_range` with the range that is available"),
        (status = 409, description = "`window_has_gaps` with `gaps`"),
        (status = 422, description = "`window_invalid`, `no_usable_segments`, `validation_failed`, `idempotency_mismatch`, `share_not_configured`"),
        (status = 429, description = "`rate_limited`"),
        (status = 500, description = "`ffmpeg_failed`, with the `clipId`"),
        (status = 507, description = "`quota_exceeded`, `insufficient_disk`"),
    )
)]
#[expect(clippy::too_many_arguments, reason = "each is one extractor")]
pub(super) async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Arrived(arrived_at): Arrived,
    RequestId(request_id): RequestId,
    key: Key,
    headers: HeaderMap,
    allowance: Allowance,
    HashedBody(body, hash): HashedBody<CaptureBody>,
) -> Answer<Response> {
    let claim = key.claim(&caller.user_id, ROUTE);
    let once = Once { state: &state, caller: &caller, claim, patience: patience(&state, &headers) };
    let (deps, who) = (state.deps.clone(), caller.clone());
    let accept = move |held| async move {
        let request = body.into_request(held, request_id)?;
        capture::capture(&deps, &who, request, arrived_at).await
    };
    once.accept(&hash, allowance, accept).await
}

/// A request that makes one clip however often it is sent with one key.
struct Once<'a> {
    state: &'a AppState,
    caller: &'a Caller,
    claim: Option<Claim>,
    patience: Patience,
}

impl Once<'_> {
    async fn accept<A, F>(self, hash: &str, allowance: Allowance, accept: A) -> Answer<Response>
    where
        A: FnOnce(Option<Held>) -> F + Send + 'static,
        F: Future<Output = Result<Accepted>> + Send + 'static,
    {
        let Once { state, caller, claim, patience } = self;
        let deps = state.deps.clone();
        let held = match &claim {
            None => None,
            Some(claim) => match idempotency::begin(&deps, claim, hash, ACCEPT_LEASE).await? {
                Begun::First(held) => Some(held),
                Begun::Repeat(kept) => {
                    let repeat = Repeat::of(&kept)?;
                    let link = match &repeat.link {
                        Some(link) => link.address(&deps, &repeat.clip_id).await?,
                        None => None,
                    };
                    // also a failure is a repeat: of a capture that was accepted once and counted once
                    let again = respond(state, caller, &repeat.clip_id, link, patience).await;
                    return Ok(replayed(again.unwrap_or_else(IntoResponse::into_response)));
                }
            },
        };
        // to its end, whoever hangs up: a key that nobody frees would make repeats wait for nobody
        let accepted = finish(&state.deps, async move {
            // the first of its key, and now it counts
            let outcome = match allowance.spend().await {
                Ok(()) => accept(held.clone()).await,
                Err(error) => Err(error),
            };
            if let (Err(_), Some(held)) = (&outcome, &held) {
                idempotency::release(&deps, held).await?;
            }
            outcome
        });
        let Accepted { clip, share_url } = accepted.await?;
        respond(state, caller, &clip.id, share_url, patience).await
    }
}

/// A part of a clip, seconds from its beginning.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TrimBody {
    /// 0 or more.
    start_seconds: f64,
    /// At most the clip's `durationSeconds`.
    end_seconds: f64,
    /// `exact` (default) or `keyframe`.
    #[schema(value_type = Option<String>)]
    precision: Option<Precision>,
}

/// Makes a new clip of a part of a ready one. The clip it is cut out of stays as it is, and may be deleted meanwhile.
#[utoipa::path(
    post, path = "/clips/{id}/trim", tag = "clips", request_body = TrimBody,
    params(
        ("id" = String, Path),
        ("Prefer" = Option<String>, Header, description = "`respond-async` or `wait=<seconds>`"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters"),
    ),
    security(("bearer" = [])),
    responses(
        (status = 201, description = "The new clip is ready", body = ClipBody),
        (status = 202, description = "The new clip is being made; see Location", body = ClipBody),
        (status = 403, description = "`not_owner`"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "`clip_not_ready`"),
        (status = 422, description = "`window_invalid`, `validation_failed`"),
        (status = 429, description = "`rate_limited`: counts as a capture"),
        (status = 500, description = "`ffmpeg_failed`, with the `clipId`"),
        (status = 507, description = "`quota_exceeded`, `insufficient_disk`"),
    )
)]
#[expect(clippy::too_many_arguments, reason = "each is one extractor")]
pub(super) async fn trim(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    Path(id): Path<String>,
    key: Key,
    headers: HeaderMap,
    allowance: Allowance,
    HashedBody(body, hash): HashedBody<TrimBody>,
) -> Answer<Response> {
    let claim = key.claim(&caller.user_id, TRIM_ROUTE);
    let once = Once { state: &state, caller: &caller, claim, patience: patience(&state, &headers) };
    // the clip is part of what was asked, though not of the body
    let hash = body_hash(&serde_json::json!([&id, hash]));
    let (deps, who) = (state.deps.clone(), caller.clone());
    let accept = move |held| async move {
        let request = trim::Request {
            clip_id: ClipId::new(id),
            start_seconds: body.start_seconds,
            end_seconds: body.end_seconds,
            precision: body.precision,
            held,
            request_id: Some(request_id),
        };
        let clip = trim::trim(&deps, &who, request).await?;
        Ok(Accepted { clip, share_url: None })
    };
    once.accept(&hash, allowance, accept).await
}

/// Tries a failed clip again, while its segments are kept.
#[utoipa::path(
    post, path = "/clips/{id}/retry", tag = "clips", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses(
        (status = 201, description = "The clip is ready", body = ClipBody),
        (status = 202, description = "The clip is being made; see Location", body = ClipBody),
        (status = 403, description = "`not_owner`, `permission_denied`"),
        (status = 404, description = "`not_found`"),
        (status = 409, description = "The clip is not `failed`, or nothing of it is kept any more"),
        (status = 500, description = "`ffmpeg_failed`, with the `clipId`"),
        (status = 507, description = "`quota_exceeded`, `insufficient_disk`"),
    )
)]
pub(super) async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<Response> {
    let patience = patience(&state, &headers);
    let (deps, who, id) = (state.deps.clone(), caller.clone(), ClipId::new(id));
    let accepted =
        finish(&state.deps, async move { library::retry(&deps, &who, &id).await }).await?;
    respond(&state, &caller, &accepted.id, None, patience).await
}

/// How long a caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    /// `None` = not at all.
    longest: Option<Duration>,
    /// Whether the caller said so himself.
    preferred: bool,
}

fn patience(state: &AppState, headers: &HeaderMap) -> Patience {
    let server = &state.deps.config.server;
    let usual = state.deps.config.capture.wait.min(server.max_wait);
    let given = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    preference(given, usual, server.max_wait)
}

/// RFC 7240: the first of each preference counts, what cannot be read is ignored.
fn preference<'a>(
    given: impl Iterator<Item = &'a str>,
    usual: Duration,
    most: Duration,
) -> Patience {
    let words: Vec<&str> = given.flat_map(|value| value.split(',')).map(str::trim).collect();
    let wait = words.iter().find_map(|word| {
        let (name, seconds) = word.split(';').next()?.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        let seconds = seconds.trim().trim_matches('"').parse::<u64>().ok()?;
        is_wait.then(|| Duration::from_secs(seconds).min(most))
    });
    let is_async = words.iter().any(|word| word.eq_ignore_ascii_case("respond-async"));
    match (wait, is_async) {
        // both: wait that long, then answer 202
        (Some(wait), _) => Patience { longest: Some(wait), preferred: true },
        (None, true) => Patience { longest: None, preferred: true },
        (None, false) => Patience { longest: Some(usual), preferred: false },
    }
}

/// 201, 202, or the problem that the capture ended with.
async fn respond(
    state: &AppState,
    caller: &Caller,
    id: &ClipId,
    share_url: Option<String>,
    patience: Patience,
) -> Answer<Response> {
    let longest = patience.longest.unwrap_or_default();
    let found = capture::settled(&state.deps, id, longest).await?;
    let Some(clip) = found else {
        let error = Error::new(Code::Cancelled, "The capture was cancelled.");
        return Err(Problem(error.with("clipId", id.as_str())));
    };
    let status = match clip.status {
        ClipStatus::Ready if patience.longest.is_some() => StatusCode::CREATED,
        ClipStatus::Failed if patience.longest.is_some() => return Err(Problem(failure(&clip))),
        _ => StatusCode::ACCEPTED,
    };
    let mut body = shape::clip(&state.deps, caller, &clip);
    body.share_url = share_url;
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&shape::location(&clip)) {
        headers.insert(header::LOCATION, location);
    }
    if patience.preferred {
        let applied = match patience.longest {
            Some(wait) => format!("wait={}", wait.as_secs()),
            None => "respond-async".to_owned(),
        };
        if let Ok(applied) = HeaderValue::from_str(&applied) {
            headers.insert(PREFERENCE_APPLIED, applied);
        }
    }
    Ok(response)
}

/// A failed clip as the problem it failed with.
fn failure(clip: &Clip) -> Error {
    let code = clip.error_code.as_deref().and_then(Code::from_name).unwrap_or(Code::Internal);
    let detail = clip.error_detail.clone().unwrap_or_default();
    let error = Error::new(code, detail).with("clipId", clip.id.as_str());
    match serde_json::from_str::<Value>(&clip.gaps) {
        Ok(gaps) if code == Code::WindowHasGaps => error.with("gaps", gaps),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(given: &[&str]) -> Option<u64> {
        let (usual, most) = (Duration::from_secs(15), Duration::from_secs(60));
        preference(given.iter().copied(), usual, most).longest.map(|wait| wait.as_secs())
    }

    #[test]
    fn a_caller_says_how_long_he_waits() {
        assert_eq!(wait(&[]), Some(15));
        assert_eq!(wait(&["respond-async"]), None);
        assert_eq!(wait(&["wait=5"]), Some(5));
        assert_eq!(wait(&["handling=lenient, Wait=\"7\""]), Some(7));
        assert_eq!(wait(&["wait=9999"]), Some(60));
        assert_eq!(wait(&["respond-async, wait=3"]), Some(3));
        assert_eq!(wait(&["wait=soon", "return=minimal"]), Some(15));
    }
}
