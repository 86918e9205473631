//! A person as a whole: what is kept of him, and the end of it.

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{audit::EntryView, lists::RunHow};
use crate::{
    access::Caller,
    domain::id::UserId,
    flow::{
        erase::{self, Erased},
        export::{self, File},
    },
    http::{
        AppState,
        error::Answer,
        extract::{Path, Query},
    },
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(erase_user)).routes(routes!(export_user))
}

/// What was erased, or with `dryRun` would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ErasedView {
    dry_run: bool,
    sessions: u64,
    /// Of these, buffers that were running.
    stopped: u64,
    /// Clips of whatever state.
    clips: u64,
    /// Bytes of clips.
    clip_bytes: i64,
    /// Rows of other kinds; 0 in a dry run.
    rows: u64,
    /// Directories and files in the stores beside clips that have a row; in a dry run all that has his name.
    files: u64,
    /// Whether a search of every table and of both stores found nothing of him afterwards.
    verified: bool,
}

impl From<Erased> for ErasedView {
    fn from(erased: Erased) -> ErasedView {
        ErasedView {
            dry_run: erased.dry_run,
            sessions: erased.sessions,
            stopped: erased.stopped,
            clips: erased.clips,
            clip_bytes: erased.clip_bytes,
            rows: erased.rows,
            files: erased.files,
            verified: erased.verified,
        }
    }
}

/// Erases a user: stops his recordings, deletes his buffers, clips and rows, and looks whether anything is left. The
/// audit log keeps that it happened and no longer says to whom. Takes as long as his recordings need to end, at most
/// a minute; safe to repeat. Instance admin.
#[utoipa::path(delete, path = "/admin/users/{id}", tag = "admin", security(("bearer" = [])),
    params(("id" = String, Path), RunHow),
    responses((status = 200, body = ErasedView), (status = 403, description = "permission_denied"),
        (status = 503, description = "overloaded: `left` says where something still is; run it again")))]
async fn erase_user(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(how): Query<RunHow>,
) -> Answer<Json<ErasedView>> {
    let (deps, dry_run) = (state.deps.clone(), how.dry_run()?);
    // what was begun goes on when the caller hangs up
    let work = async move { erase::erase(&deps, &caller, &UserId::new(id), dry_run).await };
    Ok(Json(state.deps.to_the_end(work).await?.into()))
}

/// A file of a clip.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FileView {
    /// Relative to the clip store.
    path: String,
    /// Its name in an export.
    name: String,
}

impl From<File> for FileView {
    fn from(file: File) -> FileView {
        FileView { path: file.path, name: file.name }
    }
}

/// What is kept of a user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ExportView {
    user_id: String,
    /// Rows by table; moments in microseconds since the Unix epoch. Other people are left out.
    #[schema(value_type = Object)]
    rows: Map<String, Value>,
    /// Lines of the audit log about him.
    audit: Vec<EntryView>,
    /// Where the clip store is, as this service sees it.
    clip_store: String,
    /// His clips' files.
    files: Vec<FileView>,
}

/// What is kept of a user: rows, audit lines, and which files. The bytes of the files are fetched from the store
/// (`users export` does). Instance admin.
#[utoipa::path(get, path = "/admin/users/{id}/export", tag = "admin", security(("bearer" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = ExportView), (status = 403, description = "permission_denied")))]
async fn export_user(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<ExportView>> {
    let exported = export::export(&state.deps, &caller, &UserId::new(id.as_str())).await?;
    Ok(Json(ExportView {
        user_id: id,
        rows: exported.rows,
        audit: exported.audit.into_iter().map(EntryView::from).collect(),
        clip_store: state.deps.config.storage.clips.display().to_string(),
        files: exported.files.into_iter().map(FileView::from).collect(),
    }))
}
