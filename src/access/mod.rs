//! Who may do what: tokens become a [`Caller`], roles and rules become decisions that can be explained. casbin is
//! behind this and nowhere else. Rows are read by the flow above and handed in; nothing here asks a database.

use std::collections::BTreeMap;

use crate::domain::{
    audit::Door,
    id::{CommunityId, UserId},
    text_enum::text_enum,
    time::Timestamp,
};

pub mod policy;
pub mod rulebook;
pub mod token;

/// The community of instance-wide roles and of default rules; nobody's community has this name.
pub const EVERYWHERE: &str = "*";

/// The instance-wide role that may everything.
pub const INSTANCE_ADMIN: &str = "instance_admin";

/// The role everybody has who belongs to a community.
pub const MEMBER: &str = "member";

text_enum!(
    /// A right in a community.
    Permission {
        /// Start a buffer of one's own share.
        EnableReplayBuffer = "ENABLE_REPLAY_BUFFER",
        /// Capture from one's own buffer.
        CaptureReplay = "CAPTURE_REPLAY",
        /// Change the community's limits, stop and see its sessions.
        ManageReplayLimits = "MANAGE_REPLAY_LIMITS",
    }
);

/// Who calls, as the token says; roles in the database come on top when a decision is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `sub`.
    pub user_id: UserId,
    /// `name`.
    pub name: Option<String>,
    /// `iat`: roles of the token count only if it is later than the member's last removal.
    pub issued_at: Option<Timestamp>,
    /// Roles by community, as far as the configuration believes the token.
    pub communities: BTreeMap<CommunityId, Vec<String>>,
    /// Instance-wide roles, as far as the configuration believes the token.
    pub roles: Vec<String>,
    /// The way he came.
    pub origin: Origin,
}

/// By which way in a caller came, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// With a token, through the control socket, or on the command line.
    pub door: Door,
    /// The user id of the process behind the socket or the command.
    pub uid: Option<u32>,
    /// The request.
    pub request_id: Option<String>,
    /// When his token runs out, if he has one: a request is over by then, a stream of events must be.
    pub expires_at: Option<Timestamp>,
}

impl Default for Origin {
    fn default() -> Origin {
        Origin { door: Door::User, uid: None, request_id: None, expires_at: None }
    }
}
