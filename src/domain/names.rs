//! What names from outside may be, whose an identity is, and which community a room belongs to.

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    domain::id::{CommunityId, Identity, RoomName, UserId},
    error::{Error, Result},
};

/// Names of rooms, users, tracks, communities, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Titles, in characters.
pub const MAX_TITLE_CHARS: usize = 200;
/// The group of `livekit.identity_pattern` that is the user.
pub const USER_GROUP: &str = "user";
/// The group of `rooms.community_pattern` that is the community (the first group if none bears the name).
pub const COMMUNITY_GROUP: &str = "community";

/// Accepts a name of 1 to 256 bytes without control characters; `field` is told on refusal.
pub fn check_name(field: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid_field(field, "must not be empty"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid_field(field, format!("must not exceed {MAX_NAME_BYTES} bytes")));
    }
    no_controls(field, name)
}

/// Accepts a title of up to 200 characters without control characters.
pub fn check_title(field: &str, title: &str) -> Result<()> {
    if title.chars().count() > MAX_TITLE_CHARS {
        let message = format!("must not exceed {MAX_TITLE_CHARS} characters");
        return Err(Error::invalid_field(field, message));
    }
    no_controls(field, title)
}

fn no_controls(field: &str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) {
        return Err(Error::invalid_field(field, "must not contain control characters"));
    }
    Ok(())
}

/// Whose a LiveKit identity is (`livekit.identity_pattern`).
#[derive(Debug, Clone)]
pub struct IdentityRule(Regex);

impl IdentityRule {
    /// Takes a pattern with a group `user`; the message on refusal is for the operator.
    pub fn new(pattern: &str) -> std::result::Result<IdentityRule, String> {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        if regex.capture_names().flatten().any(|name| name == USER_GROUP) {
            Ok(IdentityRule(regex))
        } else {
            Err(format!("the pattern needs a group named `{USER_GROUP}`, as in ^(?<user>.+)$"))
        }
    }

    /// The user behind an identity; none if the pattern does not fit.
    pub fn user_of(&self, identity: &Identity) -> Option<UserId> {
        let found = self.0.captures(identity.as_str())?.name(USER_GROUP)?.as_str();
        check_name("identity", found).ok()?;
        Some(UserId::new(found))
    }
}

/// Where a room's community may be read from (`rooms.community_sources`), in the order asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommunitySource {
    /// The room's name.
    Pattern,
    /// `communityId` in the room's metadata JSON.
    Metadata,
}

/// Which community a room belongs to.
#[derive(Debug, Clone)]
pub struct CommunityRule {
    pattern: Option<Regex>,
    sources: Vec<CommunitySource>,
}

impl CommunityRule {
    /// Takes `rooms.community_pattern` (with a group) and the sources; the message on refusal is for the operator.
    pub fn new(
        pattern: Option<&str>,
        sources: Vec<CommunitySource>,
    ) -> std::result::Result<CommunityRule, String> {
        let pattern = pattern.map(Regex::new).transpose().map_err(|error| error.to_string())?;
        if pattern.as_ref().is_some_and(|regex| regex.captures_len() < 2) {
            return Err(format!("the pattern needs a group, as in ^(?<{COMMUNITY_GROUP}>[^-]+)-"));
        }
        Ok(CommunityRule { pattern, sources })
    }

    /// The community of a room; none if no source names one. `metadata` is the room's own, never a participant's.
    pub fn community_of(&self, room: &RoomName, metadata: &str) -> Option<CommunityId> {
        let found = self.sources.iter().find_map(|source| match source {
            CommunitySource::Pattern => self.in_name(room.as_str()),
            CommunitySource::Metadata => in_metadata(metadata),
        });
        found.map(CommunityId::new)
    }

    fn in_name(&self, room: &str) -> Option<String> {
        let captures = self.pattern.as_ref()?.captures(room)?;
        acceptable(captures.name(COMMUNITY_GROUP).or_else(|| captures.get(1))?.as_str())
    }
}

fn in_metadata(metadata: &str) -> Option<String> {
    let value: Value = serde_json::from_str(metadata).ok()?;
    acceptable(value.get("communityId")?.as_str()?)
}

fn acceptable(name: &str) -> Option<String> {
    check_name("communityId", name).ok().map(|()| name.to_owned())
}

/// Bytes of a file name that every file system takes, with room for the ending.
const NAME_BYTES: usize = 200;

/// The title as a file name on any system: nothing that separates paths, hides an ending or turns the text around.
pub fn file_name(title: &str) -> String {
    let special = |c: char| {
        c.is_control()
            || "/\\:*?\"<>|".contains(c)
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut name: String = title.chars().map(|c| if special(c) { '_' } else { c }).collect();
    while name.len() > NAME_BYTES {
        name.pop();
    }
    let name = name.trim_matches([' ', '.']);
    if name.is_empty() { "clip.mp4".to_owned() } else { format!("{name}.mp4") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn names_are_bounded_in_bytes_titles_in_characters_and_controls_are_refused() {
        assert!(check_name("roomName", &"\u{e4}".repeat(128)).is_ok());
        for bad in [
            String::new(),
            "\u{e4}".repeat(129),
            "a\nb".to_owned(),
            "\u{85}".to_owned(),
            "a\0".to_owned(),
        ] {
            let error = check_name("roomName", &bad).expect_err("refused");
            assert_eq!(error.code(), Code::ValidationFailed);
            assert_eq!(error.fields()["errors"][0]["field"], "roomName");
        }
        assert!(check_name("roomName", "../'; DROP <b> \u{1f600} $(x)").is_ok());
        assert!(check_title("title", &"\u{1f600}".repeat(200)).is_ok());
        assert!(check_title("title", "").is_ok());
        assert!(check_title("title", &"a".repeat(201)).is_err());
        assert!(check_title("title", "a\tb").is_err());
    }

    #[test]
    fn the_group_user_is_the_user() {
        let user = |pattern: &str, identity: &str| {
            let rule = IdentityRule::new(pattern).expect("a pattern");
            rule.user_of(&Identity::new(identity)).map(UserId::into_string)
        };
        assert_eq!(user("^(?<user>.+)$", "alice").as_deref(), Some("alice"));
        assert_eq!(user("^(?<user>[^:]+):.*$", "alice:phone").as_deref(), Some("alice"));
        assert_eq!(user("^(?<user>[^:]+):.*$", "alice"), None);
        assert_eq!(user("^(?<user>.*)$", ""), None);
        assert!(IdentityRule::new("^.+$").is_err());
        assert!(IdentityRule::new("(?<user>").is_err());
    }

    #[test]
    fn a_rooms_community_comes_from_its_name_then_its_metadata() {
        let both = vec![CommunitySource::Pattern, CommunitySource::Metadata];
        let rule =
            CommunityRule::new(Some("^c-(?<community>[^/]+)/"), both.clone()).expect("a rule");
        let of = |room: &str, metadata: &str| {
            rule.community_of(&RoomName::new(room), metadata).map(CommunityId::into_string)
        };
        let metadata = r#"{"communityId": "green"}"#;
        assert_eq!(of("c-red/lobby", metadata).as_deref(), Some("red"));
        assert_eq!(of("lobby", metadata).as_deref(), Some("green"));
        for nothing in [
            "",
            "{",
            "[]",
            r#"{"communityId": 7}"#,
            r#"{"communityId": ""}"#,
            r#"{"communityId": "a\n"}"#,
        ] {
            assert_eq!(of("lobby", nothing), None);
        }
        let by_name_only =
            CommunityRule::new(None, vec![CommunitySource::Pattern]).expect("a rule");
        assert_eq!(by_name_only.community_of(&RoomName::new("x"), metadata), None);
        let unnamed = CommunityRule::new(Some("^([a-z]+)-"), both.clone()).expect("a rule");
        assert_eq!(
            unnamed.community_of(&RoomName::new("blue-1"), ""),
            Some(CommunityId::new("blue"))
        );
        assert!(CommunityRule::new(Some("^x"), both).is_err());
    }

    #[test]
    fn a_title_becomes_one_harmless_file_name() {
        assert_eq!(file_name("Größter Sieg!"), "Größter Sieg!.mp4");
        assert_eq!(file_name("../../etc/passwd"), "_.._etc_passwd.mp4");
        assert_eq!(file_name("C:\\x\r\n"), "C__x__.mp4");
        assert_eq!(file_name("..."), "clip.mp4");
        assert_eq!(file_name("evil\u{202e}4pm.exe"), "evil_4pm.exe.mp4");
        assert!(file_name(&"😀".repeat(200)).len() <= 204);
    }
}
