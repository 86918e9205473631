//! What users take, by community: one query, however many there are.

use sea_orm::{FromQueryResult, Statement};

use super::{Conn, db_error};
use crate::{
    domain::id::{CommunityId, UserId},
    error::Result,
};

/// What one user takes in one community.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct Row {
    /// Who.
    pub user_id: UserId,
    /// Where; none for what belongs to no community.
    pub community_id: Option<CommunityId>,
    /// Bytes of ready clips.
    pub clip_bytes: i64,
    /// Bytes reserved for clips that are being made.
    pub reserved_bytes: i64,
    /// Ready clips.
    pub clips: i64,
    /// Sessions there are rows of.
    pub sessions: i64,
    /// Those of them that hold a place.
    pub active_sessions: i64,
    /// Bytes of segments that are kept.
    pub buffer_bytes: i64,
}

const SUMS: &str = "SELECT user_id, community_id, \
    CAST(SUM(clip_bytes) AS BIGINT) AS clip_bytes, \
    CAST(SUM(reserved) AS BIGINT) AS reserved_bytes, \
    CAST(SUM(clips) AS BIGINT) AS clips, \
    CAST(SUM(sessions) AS BIGINT) AS sessions, \
    CAST(SUM(active) AS BIGINT) AS active_sessions, \
    CAST(SUM(buffer) AS BIGINT) AS buffer_bytes FROM (\
    SELECT user_id, community_id, CASE WHEN status = 'ready' THEN size_bytes ELSE 0 END AS clip_bytes, \
        CASE WHEN status = 'processing' THEN reserved_bytes ELSE 0 END AS reserved, \
        CASE WHEN status = 'ready' THEN 1 ELSE 0 END AS clips, 0 AS sessions, 0 AS active, 0 AS buffer \
        FROM clip \
    UNION ALL \
    SELECT user_id, community_id, 0, 0, 0, 1, CASE WHEN holds_place THEN 1 ELSE 0 END, 0 FROM session \
    UNION ALL \
    SELECT s.user_id, s.community_id, 0, 0, 0, 0, 0, g.size_bytes \
        FROM segment g JOIN session s ON s.id = g.session_id WHERE g.condemned_at IS NULL) AS taken";

/// What everybody takes, by user and community; in one community if one is given.
pub async fn list<C: Conn>(db: &C, community: Option<&CommunityId>) -> Result<Vec<Row>> {
    let backend = db.get_database_backend();
    let (narrow, values) = match community {
        Some(id) => {
            let place = if super::is_sqlite(backend) { "?" } else { "$1" };
            (format!(" WHERE community_id = {place}"), vec![id.as_str().into()])
        }
        None => (String::new(), Vec::new()),
    };
    let sql = format!("{SUMS}{narrow} GROUP BY user_id, community_id");
    Row::find_by_statement(Statement::from_sql_and_values(backend, sql, values))
        .all(db)
        .await
        .map_err(|error| db_error("adding up what users take", error))
}
