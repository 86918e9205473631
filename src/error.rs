//! What can go wrong, in our words: a stable code, a text for the caller, and the private cause beneath.
//!
//! Knows nothing of HTTP: `http::error` is the one place where a status is chosen. A new kind of failure gets a
//! new [`Code`] here, a status there and a row in `tests/golden/errors.txt`.

use std::{fmt, time::Duration};

use serde_json::{Map, Value};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Stable names of failures; callers branch on them, so one is never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The user already holds a place; carries `sessionId`, `roomName`, `startedAt`.
    BufferAlreadyActive,
    /// The session is over (or ending).
    SessionNotActive,
    /// The community's places are taken; carries `maxConcurrent`, `active`.
    CommunityLimitReached,
    /// The community's replay is switched off.
    CommunityDisabled,
    /// The room belongs to another community than the caller said.
    CommunityMismatch,
    /// Carries `permission`, `communityId`.
    PermissionDenied,
    /// May see, not change.
    NotOwner,
    /// Does not exist, or the caller may not know that it does.
    NotFound,
    /// The track named is not the caller's screen share (or its audio).
    TrackNotYours,
    /// The caller has no capturable session.
    NoSession,
    /// Nothing recorded in the window; carries `available`.
    NoSegmentsInRange,
    /// The window makes no sense: no form, two forms, out of bounds.
    WindowInvalid,
    /// `gapPolicy: refuse`, and there are gaps; carries `gaps`.
    WindowHasGaps,
    /// The user's bytes do not suffice; carries `usedBytes`, `reservedBytes`, `quotaBytes`, `neededBytes`.
    QuotaExceeded,
    /// The server's disk does not suffice.
    InsufficientDisk,
    /// Too many requests of this kind by this user.
    RateLimited,
    /// The caller shares no screen in that room.
    ScreenShareNotFound,
    /// LiveKit did not answer.
    LivekitUnreachable,
    /// LiveKit refused our key.
    LivekitRejectedCredentials,
    /// LiveKit has no egress worker to give, or does not know the call.
    EgressUnavailable,
    /// LiveKit did not say within the deadline whether the egress started.
    EgressStartTimeout,
    /// FFmpeg ended badly.
    FfmpegFailed,
    /// Segments were there, none was usable.
    NoUsableSegments,
    /// A store cannot be read or written.
    StorageUnavailable,
    /// The clip is still being made, or failed.
    ClipNotReady,
    /// A ready clip's file is gone (found by verification only).
    FileMissing,
    /// No or bad credentials; carries `reason`.
    Unauthenticated,
    /// A field is wrong; carries `errors`.
    ValidationFailed,
    /// The idempotency key was used with another body.
    IdempotencyMismatch,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The body is larger than we take.
    TooLarge,
    /// The body is of a kind we do not read.
    UnsupportedMediaType,
    /// The bytes asked for lie outside the file.
    RangeNotSatisfiable,
    /// The app does not let the caller share there.
    ShareRefused,
    /// The app did not take the share.
    ShareFailed,
    /// There is no app to deliver shares to.
    ShareNotConfigured,
    /// A queue or pool is full.
    Overloaded,
    /// The service is shutting down.
    Draining,
    /// The capture was cancelled by its owner.
    Cancelled,
    /// Our own fault.
    Internal,
}

impl Code {
    /// Every code, for the table that a test compares.
    pub const ALL: &'static [Code] = &[
        Code::BufferAlreadyActive,
        Code::SessionNotActive,
        Code::CommunityLimitReached,
        Code::CommunityDisabled,
        Code::CommunityMismatch,
        Code::PermissionDenied,
        Code::NotOwner,
        Code::NotFound,
        Code::TrackNotYours,
        Code::NoSession,
        Code::NoSegmentsInRange,
        Code::WindowInvalid,
        Code::WindowHasGaps,
        Code::QuotaExceeded,
        Code::InsufficientDisk,
        Code::RateLimited,
        Code::ScreenShareNotFound,
        Code::LivekitUnreachable,
        Code::LivekitRejectedCredentials,
        Code::EgressUnavailable,
        Code::EgressStartTimeout,
        Code::FfmpegFailed,
        Code::NoUsableSegments,
        Code::StorageUnavailable,
        Code::ClipNotReady,
        Code::FileMissing,
        Code::Unauthenticated,
        Code::ValidationFailed,
        Code::IdempotencyMismatch,
        Code::MethodNotAllowed,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::RangeNotSatisfiable,
        Code::ShareRefused,
        Code::ShareFailed,
        Code::ShareNotConfigured,
        Code::Overloaded,
        Code::Draining,
        Code::Cancelled,
        Code::Internal,
    ];

    /// The code as it stands in a `problem+json` body and in `clip.error.code`.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BufferAlreadyActive => "buffer_already_active",
            Code::SessionNotActive => "session_not_active",
            Code::CommunityLimitReached => "community_limit_reached",
            Code::CommunityDisabled => "community_disabled",
            Code::CommunityMismatch => "community_mismatch",
            Code::PermissionDenied => "permission_denied",
            Code::NotOwner => "not_owner",
            Code::NotFound => "not_found",
            Code::TrackNotYours => "track_not_yours",
            Code::NoSession => "no_session",
            Code::NoSegmentsInRange => "no_segments_in_range",
            Code::WindowInvalid => "window_invalid",
            Code::WindowHasGaps => "window_has_gaps",
            Code::QuotaExceeded => "quota_exceeded",
            Code::InsufficientDisk => "insufficient_disk",
            Code::RateLimited => "rate_limited",
            Code::ScreenShareNotFound => "screen_share_not_found",
            Code::LivekitUnreachable => "livekit_unreachable",
            Code::LivekitRejectedCredentials => "livekit_rejected_credentials",
            Code::EgressUnavailable => "egress_unavailable",
            Code::EgressStartTimeout => "egress_start_timeout",
            Code::FfmpegFailed => "ffmpeg_failed",
            Code::NoUsableSegments => "no_usable_segments",
            Code::StorageUnavailable => "storage_unavailable",
            Code::ClipNotReady => "clip_not_ready",
            Code::FileMissing => "file_missing",
            Code::Unauthenticated => "unauthenticated",
            Code::ValidationFailed => "validation_failed",
            Code::IdempotencyMismatch => "idempotency_mismatch",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::TooLarge => "too_large",
            Code::UnsupportedMediaType => "unsupported_media_type",
            Code::RangeNotSatisfiable => "range_not_satisfiable",
            Code::ShareRefused => "share_refused",
            Code::ShareFailed => "share_failed",
            Code::ShareNotConfigured => "share_not_configured",
            Code::Overloaded => "overloaded",
            Code::Draining => "draining",
            Code::Cancelled => "cancelled",
            Code::Internal => "internal",
        }
    }

    /// The code whose [`as_str`](Code::as_str) this is.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: what the caller reads, and what only our log sees.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    detail: String,
    fields: Map<String, Value>,
    retry_after: Option<Duration>,
    retryable: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure with a text for the caller: a whole sentence without secrets, paths or names of inner parts.
    pub fn new(code: Code, detail: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            code,
            detail: detail.into(),
            fields: Map::new(),
            retry_after: None,
            retryable: false,
            source: None,
        }))
    }

    /// Our own fault: the caller learns nothing but the request id, `doing` and `source` go to the log.
    pub fn internal(
        doing: impl fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::new(Code::Internal, "Something went wrong on our side.")
            .because(Doing { doing: doing.to_string(), source: source.into() })
    }

    /// A thing that is not there, or that the caller may not know of.
    pub fn not_found(what: &str) -> Error {
        Error::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// A field of a request that does not fit.
    pub fn invalid_field(field: &str, message: impl Into<String>) -> Error {
        let message = message.into();
        Error::new(Code::ValidationFailed, format!("{field}: {message}"))
            .with("errors", serde_json::json!([{ "field": field, "message": message }]))
    }

    /// Adds a member to the problem body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Error {
        self.0.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Says when asking again makes sense.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Error {
        self.0.retry_after = Some(delay);
        self
    }

    /// Marks a failure of a job as passing: the job is tried again.
    #[must_use]
    pub fn retryable(mut self) -> Error {
        self.0.retryable = true;
        self
    }

    /// Attaches the private cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The caller's text.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Further members of the problem body.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0.fields
    }

    /// When to ask again; 503 and 429 always carry one (the HTTP layer has a default).
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether a job that failed this way is worth another attempt.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The whole chain of causes in one line, for the log alone.
    pub fn chain(&self) -> String {
        let mut text = format!("{}: {}", self.0.code, self.0.detail);
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.detail, self.0.code)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|cause| &**cause as &(dyn std::error::Error + 'static))
    }
}

/// What was being done when the cause beneath happened.
#[derive(Debug)]
struct Doing {
    doing: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl std::error::Error for Doing {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_is_found_by_it() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn the_chain_names_what_was_done_and_the_root_but_the_detail_does_not() {
        let error = Error::internal("reading the lock", std::io::Error::other("disk on fire"));
        assert!(error.chain().contains("reading the lock: disk on fire"), "{}", error.chain());
        assert!(!error.detail().contains("disk"));
    }
}
