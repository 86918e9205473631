//! What is kept of a user, for him to take along: his rows as JSON and the names of his clips' files. Nothing of other
//! people is in it.

use serde_json::{Map, Value, json};

use super::{
    Deps,
    audit_log::{self, Line},
};
use crate::{
    access::Caller,
    domain::{audit::Action, id::UserId, keys, lifecycle::ClipStatus},
    error::Result,
    store::{
        clip, session,
        trace::{self, Whose},
    },
};

/// What is kept of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// Rows by table, columns as the schema names them, moments in microseconds since the Unix epoch.
    pub rows: Map<String, Value>,
    /// Lines of the audit log that he or others wrote about him.
    pub audit: Vec<audit_log::Entry>,
    /// His clips' files, relative to the clip store.
    pub files: Vec<File>,
}

/// A file of his.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the clip store.
    pub path: String,
    /// Its name in an export.
    pub name: String,
}

/// Gathers what is kept of a user.
///
/// # Errors
/// [`crate::error::Code::PermissionDenied`] for whoever is no instance admin.
pub async fn export(deps: &Deps, caller: &Caller, user: &UserId) -> Result<Exported> {
    audit_log::require_admin(deps, caller, user).await?;
    audit_log::announce(deps, caller, Line::new(Action::UserExport).user(user)).await?;
    let sessions = session::list_of_user(deps.db.conn(), user).await?;
    let clips = clip::list_of_user(deps.db.conn(), user).await?;
    let whose = Whose {
        user: user.clone(),
        sessions: sessions.into_iter().map(|row| row.id).collect(),
        clips: clips.iter().map(|row| row.id.clone()).collect(),
        checksums: Vec::new(),
    };
    let rows = trace::rows(deps.db.conn(), &whose).await?;
    let mut files = Vec::new();
    for clip in clips.iter().filter(|clip| clip.status == ClipStatus::Ready) {
        let mut file = |path: String, ending: &str| {
            files.push(File { path, name: format!("{}.{ending}", clip.id) });
        };
        file(keys::clip_path(user, &clip.id)?, "mp4");
        file(keys::sidecar_path(user, &clip.id)?, "json");
        if clip.has_poster {
            file(keys::thumbnail_path(user, &clip.id)?, "jpg");
        }
    }
    Ok(Exported {
        rows: rows.into_iter().map(|(table, rows)| (table, json!(rows))).collect(),
        audit: audit_log::about(deps, user).await?,
        files,
    })
}
