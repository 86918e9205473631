//! Whether clips are as their rows say.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::page;
use crate::{
    access::Caller,
    domain::id::ClipId,
    error::{Error, Result},
    flow::verify::{self, Checked, Finding, How, Unknown},
    http::{AppState, error::Answer, extract::Query},
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(verify_clips))
}

/// How clips are looked at.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VerifyHow {
    /// Put right what can be: `true` or `false`; else only told.
    repair: Option<String>,
    /// Read every byte and compare checksums: `true` (unless told) or `false`, then sizes only.
    bytes: Option<String>,
    /// Go on behind this clip: `next` of the answer before.
    after: Option<String>,
    /// Clips looked at, 1 to 200.
    limit: Option<u64>,
}

impl VerifyHow {
    fn how(self) -> Result<How> {
        let flag = |field: &str, text: Option<&str>, unless: bool| match text {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            None => Ok(unless),
            Some(_) => Err(Error::invalid_field(field, "is true or false")),
        };
        Ok(How {
            repair: flag("repair", self.repair.as_deref(), false)?,
            bytes: flag("bytes", self.bytes.as_deref(), true)?,
            limit: page(self.limit, None)?.limit,
            after: self.after.map(ClipId::new),
        })
    }
}

/// Something wrong with a clip.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FindingView {
    clip_id: String,
    user_id: String,
    /// `file_missing`, `file_back`, `size_differs`, `checksum_differs`, `not_compared`, `record_missing` or `record_differs`.
    fault: &'static str,
    /// Whether it was put right.
    repaired: bool,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> FindingView {
        FindingView {
            clip_id: finding.clip_id.to_string(),
            user_id: finding.user_id.to_string(),
            fault: finding.fault.as_str(),
            repaired: finding.repaired,
        }
    }
}

/// Files of the clip store that no row knew.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct UnknownView {
    /// Clips that got their row back from their record, or would.
    restored: u64,
    /// Deletions finished that were interrupted, or would be.
    deletions_finished: u64,
    /// Moved to `quarantine/` for a week, or would be.
    quarantined: u64,
    /// Things that the store would not show or let go of; the log says which.
    failed: u64,
}

impl From<Unknown> for UnknownView {
    fn from(unknown: Unknown) -> UnknownView {
        let Unknown { restored, deletions_finished, quarantined, failed } = unknown;
        UnknownView { restored, deletions_finished, quarantined, failed }
    }
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CheckedView {
    /// Clips looked at.
    clips: u64,
    /// Bytes compared with their checksum.
    bytes: u64,
    findings: Vec<FindingView>,
    /// Where to go on; absent when all were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// In the last answer: files that no row knew.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<UnknownView>,
}

impl From<Checked> for CheckedView {
    fn from(checked: Checked) -> CheckedView {
        CheckedView {
            clips: checked.clips,
            bytes: checked.bytes,
            findings: checked.findings.into_iter().map(FindingView::from).collect(),
            next: checked.next.map(|id| id.to_string()),
            unknown: checked.store.map(UnknownView::from),
        }
    }
}

/// Compares clips with their files, some at a time (about 20 s): ask again with `after` until there is no `next`. With
/// `repair`, records are written again, clips whose file is gone become `failed` (`file_missing`) and ready again when
/// it is back, videos with a record get their row back; files whose bytes differ or cannot be read are only told of. No video of a clip is
/// deleted but those whose deletion was begun, and what has lain in quarantine for its week. Instance admin.
#[utoipa::path(post, path = "/admin/clips/verify", tag = "admin", security(("bearer" = [])),
    params(VerifyHow),
    responses((status = 200, body = CheckedView), (status = 403, description = "permission_denied")))]
async fn verify_clips(
    State(state): State<AppState>,
    caller: Caller,
    Query(how): Query<VerifyHow>,
) -> Answer<Json<CheckedView>> {
    let checked = verify::verify(&state.deps, &caller, &how.how()?).await?;
    Ok(Json(checked.into()))
}
