//! The names egress gives its files when told by us: `seg_00000.ts`, counted from zero in every epoch.

/// Prefix of segment names; egress adds `_%05d.ts`.
pub const PREFIX: &str = "seg";
/// The playlist that names every segment, late.
pub const EVENT_PLAYLIST: &str = "index.m3u8";
/// The playlist that names the last five, after every segment.
pub const LIVE_PLAYLIST: &str = "live.m3u8";
