//! Where egress puts its files: the rules by which a request's names become paths. Pure.

use livekit_protocol::SegmentedFileOutput;

/// The files of one egress. Directories are absolute and cleaned; names hold no separator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    /// Directory of the playlists.
    pub(super) directory: String,
    /// Directory of the segments, relative to that of the playlists; empty when it is the same.
    pub(super) segments_below: String,
    /// First part of the segments' names.
    pub(super) prefix: String,
    /// Name of the EVENT playlist.
    pub(super) playlist: String,
    /// Name of the live playlist, when one was asked for.
    pub(super) live: Option<String>,
}

impl Paths {
    /// Applies egress's rules; `Err` names the field that egress would refuse. `now` fills a missing name.
    pub(super) fn of(
        request: &SegmentedFileOutput,
        room: &str,
        now: &str,
    ) -> Result<Paths, &'static str> {
        let (prefix_dir, mut prefix) = split(&clean(&request.filename_prefix));
        let (playlist_dir, playlist) = split(&clean(&request.playlist_name));
        let mut stem = without_extension(&playlist).to_owned();
        if stem.is_empty() {
            stem = match prefix.is_empty() {
                false => prefix.clone(),
                // room names are not cleaned by egress either; only the separators would break our own paths
                true => format!("{}-{now}", room.replace('/', "_")),
            };
        }
        if prefix.is_empty() {
            prefix.clone_from(&stem);
        }
        let (directory, segments_below) = match (playlist_dir.as_str(), prefix_dir.as_str()) {
            ("", dir) | (dir, "") => (dir.to_owned(), String::new()),
            (outer, inner) if outer == inner => (outer.to_owned(), String::new()),
            (outer, inner) => (outer.to_owned(), inner.trim_start_matches('/').to_owned()),
        };
        let live = live_name(&request.live_playlist_name, &playlist_dir, &stem)?;
        let directory = format!("/{}", directory.trim_start_matches('/'));
        Ok(Paths { directory, segments_below, prefix, playlist: format!("{stem}.m3u8"), live })
    }

    /// A segment as the playlists name it.
    pub(super) fn segment(&self, index: u32, timestamp: Option<&str>) -> String {
        let name = match timestamp {
            Some(timestamp) => format!("{}_{timestamp}.ts", self.prefix),
            None => format!("{}_{index:05}.ts", self.prefix),
        };
        join(&self.segments_below, &name)
    }

    /// The path of something named relative to the playlists.
    pub(super) fn absolute(&self, name: &str) -> String {
        join(self.directory.trim_end_matches('/'), name)
    }
}

fn live_name(asked: &str, playlist_dir: &str, stem: &str) -> Result<Option<String>, &'static str> {
    if asked.is_empty() {
        return Ok(None);
    }
    let (dir, name) = split(&clean(asked));
    let live = without_extension(&name);
    if (!dir.is_empty() && dir != playlist_dir) || live == stem || live.is_empty() {
        return Err("live_playlist_name");
    }
    Ok(Some(format!("{live}.m3u8")))
}

/// Lexical cleaning: `.`, `//` and `..` are resolved, a leading `../` is dropped, `/` at either end stays.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let lead = if path.starts_with('/') { "/" } else { "" };
    let trail = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("{lead}{}{trail}", parts.join("/"))
}

/// Directory (without the last separator) and name.
fn split(path: &str) -> (String, String) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((dir, name)) => (dir.to_owned(), name.to_owned()),
        None => (String::new(), path.to_owned()),
    }
}

fn without_extension(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prefix: &str, playlist: &str, live: &str) -> Result<Paths, &'static str> {
        let request = SegmentedFileOutput {
            filename_prefix: prefix.to_owned(),
            playlist_name: playlist.to_owned(),
            live_playlist_name: live.to_owned(),
            ..SegmentedFileOutput::default()
        };
        Paths::of(&request, "my/room", "2026-01-02T030405")
    }

    #[test]
    fn the_safe_choice_puts_all_in_one_directory() {
        let paths = of("/out/u-1/seg", "index.m3u8", "live.m3u8").unwrap();
        assert_eq!(paths.absolute(&paths.segment(0, None)), "/out/u-1/seg_00000.ts");
        assert_eq!(paths.absolute(&paths.playlist), "/out/u-1/index.m3u8");
        assert_eq!(paths.live.as_deref(), Some("live.m3u8"));
        assert_eq!(paths.segment(100_000, None), "seg_100000.ts");
    }

    #[test]
    fn different_directories_nest() {
        let paths = of("a/seg/x", "a/p.m3u8", "").unwrap();
        assert_eq!(paths.absolute(&paths.segment(0, None)), "/a/a/seg/x_00000.ts");
        assert_eq!(paths.segment(0, None), "a/seg/x_00000.ts");
    }

    #[test]
    fn names_lose_what_follows_their_last_dot_and_prefixes_do_not() {
        let paths = of("d/my.room", "", "").unwrap();
        assert_eq!((paths.prefix.as_str(), paths.playlist.as_str()), ("my.room", "my.room.m3u8"));
        assert_eq!(of("", "d/my.room", "").unwrap().playlist, "my.m3u8");
        assert_eq!(of("", "", "").unwrap().playlist, "my_room-2026-01-02T030405.m3u8");
    }

    #[test]
    fn nothing_climbs_out_and_the_live_playlist_is_another_in_the_same_place() {
        assert_eq!(of("../../etc/x", "", "").unwrap().directory, "/etc");
        assert_eq!(of("/a/../../b/x", "", "").unwrap().directory, "/b");
        assert_eq!(of("d/x", "p.m3u8", "p.m3u8"), Err("live_playlist_name"));
        assert_eq!(of("d/x", "d/p.m3u8", "e/l.m3u8"), Err("live_playlist_name"));
    }
}
