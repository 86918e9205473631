//! Opening a clip's files, by token or by signed link. Row and right are looked up at every use.

use std::{collections::BTreeMap, path::PathBuf};

use super::may_see;
use crate::{
    access::Caller,
    domain::{id::ClipId, lifecycle::ClipStatus, time::Timestamp},
    error::{Code, Error, Result},
    flow::{
        Deps,
        capture::Clip,
        clip_files::ClipFiles,
        links::{self, Link, Scope, SignedQuery, Viewer},
        poster, preview,
    },
    store::clip,
};

/// Which of a clip's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The MP4.
    Video,
    /// The poster.
    Poster,
}

impl Kind {
    fn scope(self) -> Scope {
        match self {
            Kind::Video => Scope::ClipFile,
            Kind::Poster => Scope::ClipThumbnail,
        }
    }
}

/// A file that may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// The clip.
    pub clip: Clip,
}

/// Opens a clip's file for a caller.
///
/// # Errors
/// `not_found`, `clip_not_ready`.
pub async fn open(deps: &Deps, caller: &Caller, id: &ClipId, kind: Kind) -> Result<File> {
    let clip = clip::load(deps.db.conn(), id).await?;
    file_for(deps, caller, clip, kind).await
}

/// Opens a clip's file for who holds a signed link.
///
/// # Errors
/// As [`open`], and `unauthenticated` for a link that does not work (any more).
pub async fn open_link(deps: &Deps, query: &SignedQuery, id: &ClipId, kind: Kind) -> Result<File> {
    let clip = clip::load(deps.db.conn(), id).await?;
    let link = Link { scope: kind.scope(), id: id.as_str(), generation: clip.link_generation };
    let viewer = links::verify(&deps.link_key, link, query, deps.clock.now())?;
    let caller = caller_of(viewer, &clip);
    file_for(deps, &caller, clip, kind).await
}

async fn file_for(deps: &Deps, caller: &Caller, clip: Clip, kind: Kind) -> Result<File> {
    if !may_see(deps, caller, &clip).await? {
        return Err(Error::not_found("clip"));
    }
    if clip.status != ClipStatus::Ready {
        return Err(Error::new(Code::ClipNotReady, "This clip is not ready.")
            .with("status", clip.status.as_str()));
    }
    let files = ClipFiles::of(deps, &clip.user_id, &clip.id)?;
    let path = match kind {
        Kind::Video => files.video,
        Kind::Poster => {
            poster::demand(deps, &clip).await.map_err(|error| match error.code() {
                Code::FfmpegFailed => Error::not_found("thumbnail"),
                _ => error,
            })?;
            files.poster
        }
    };
    Ok(File { path, clip })
}

/// Who comes by a link has no token; of the token that the link was made with only the membership is remembered.
fn caller_of(viewer: Viewer, clip: &Clip) -> Caller {
    let member = viewer.member_since.and(clip.community_id.clone());
    let communities: BTreeMap<_, _> =
        member.into_iter().map(|community| (community, vec!["member".to_owned()])).collect();
    Caller {
        user_id: viewer.user,
        name: None,
        issued_at: viewer.member_since,
        communities,
        roles: Vec::new(),
        origin: Default::default(),
    }
}

/// The signed queries of a clip's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Query of the MP4.
    pub video: String,
    /// Query of the poster.
    pub poster: String,
    /// Query of the playlist, for the owner while the clip is being made.
    pub preview: Option<String>,
}

/// Signed queries by which the caller's player can fetch the clip's files without his token.
pub fn links(deps: &Deps, caller: &Caller, clip: &Clip) -> Links {
    let by_token = clip.community_id.as_ref().is_some_and(|id| caller.communities.contains_key(id));
    let viewer = Viewer {
        user: caller.user_id.clone(),
        // a token that does not say when it was issued counts until the first removal, and so does its link
        member_since: by_token.then(|| caller.issued_at.unwrap_or(Timestamp::from_micros(0))),
    };
    let expires: Timestamp = links::expiry(deps.clock.now(), deps.config.clips.link_ttl);
    let sign = |kind: Kind| {
        let link =
            Link { scope: kind.scope(), id: clip.id.as_str(), generation: clip.link_generation };
        links::sign(&deps.link_key, link, &viewer, expires)
    };
    let preview = preview::clip_query(deps, caller, clip);
    Links { video: sign(Kind::Video), poster: sign(Kind::Poster), preview }
}
