//! Names of things as types. Ours are opaque (UUID v7 text); LiveKit's and the app's are taken as they come and
//! never become a path, header or query by themselves.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The text, owned.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! own_id {
    ($(#[$doc:meta])* $name:ident) => {
        text_id!($(#[$doc])* $name);
        impl $name {
            /// A new one, sortable by creation.
            pub fn generate() -> Self {
                Self(uuid::Uuid::now_v7().to_string())
            }
        }
    };
}

own_id!(
    /// One user's replay buffer in one room.
    SessionId
);
own_id!(
    /// A permanent clip.
    ClipId
);
own_id!(
    /// A durable piece of work.
    JobId
);
own_id!(
    /// What keeps a window of a session from cleanup.
    PinId
);
own_id!(
    /// A clip handed to somebody by a link.
    ShareId
);
text_id!(
    /// Something that happened: random, so that it tells nothing of others' events. `0` is before the first.
    EventId
);
text_id!(
    /// LiveKit's name of a recording process (`EG_…`).
    EgressId
);
text_id!(
    /// The app's name of a user: the `sub` of a token, the group `user` of a LiveKit identity.
    UserId
);
text_id!(
    /// The tenant with members, roles and limits.
    CommunityId
);
text_id!(
    /// A LiveKit room, as LiveKit spells it.
    RoomName
);
text_id!(
    /// A LiveKit participant's identity.
    Identity
);
text_id!(
    /// A LiveKit track (`TR_…`).
    TrackId
);
text_id!(
    /// The eight hex digits made with the database; everything of ours in a store carries them.
    InstanceId
);
