//! Who may import whom: the table in `src/lib.rs`, held by every file, and foreign crates that stay in their rooms.
//! Tests inside a file may reach further; they are not looked at.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use livekit_replay::error::Code;

const GROUND: &[&str] = &["error", "clock", "config", "telemetry", "domain"];

/// What a room may import besides itself; `None` = everything.
fn allowed(room: &str) -> Option<Vec<&'static str>> {
    let with = |more: &[&'static str]| Some(GROUND.iter().chain(more).copied().collect());
    match room {
        "error" | "clock" | "config" | "telemetry" => with(&[]),
        "domain" => Some(vec!["error"]),
        "store" | "media" | "livekit" | "access" | "outbound" => with(&[]),
        "flow" => with(&["store", "media", "livekit", "access", "outbound"]),
        "http" => with(&["flow", "access", "livekit::webhook"]),
        "jobs" | "schedule" => with(&["flow"]),
        "cli" => with(&["flow", "access", "http", "app", "simulator"]),
        "simulator" => Some(vec!["error"]),
        "app" | "lib" | "main" => None,
        other => {
            panic!("src/{other} stands in no row of the table; give it one here and in src/lib.rs")
        }
    }
}

/// Foreign crates, and the rooms that may speak to them.
const FOREIGN: &[(&str, &[&str])] = &[
    ("axum", &["http", "app", "simulator", "cli"]),
    ("utoipa", &["http"]),
    ("sea_orm", &["store"]),
    ("sea_orm_migration", &["store"]),
    ("casbin", &["access"]),
    ("livekit_api", &["livekit", "simulator"]),
    ("livekit_protocol", &["livekit", "simulator"]),
];

#[test]
fn every_room_imports_only_what_the_table_lets_it() {
    let mut faults = Vec::new();
    for (room, path, code) in sources() {
        let Some(allowed) = allowed(&room) else { continue };
        for import in imports(&code) {
            let first = import.split("::").next().unwrap_or_default();
            let fits = first == room
                || allowed
                    .iter()
                    .any(|may| import == *may || import.starts_with(&format!("{may}::")));
            if !fits {
                faults.push(format!("{}: crate::{import}", path.display()));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "imports that the table in src/lib.rs forbids:\n{}",
        faults.join("\n")
    );
}

#[test]
fn foreign_crates_stay_in_their_rooms() {
    let mut faults = Vec::new();
    for (room, path, code) in sources() {
        for (foreign, rooms) in FOREIGN {
            if speaks_to(&code, foreign) && !rooms.contains(&room.as_str()) {
                faults.push(format!("{}: {foreign}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "crates outside their rooms:\n{}", faults.join("\n"));
}

/// Every file of `src` with its room, without comments and without its tests.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let sources: Vec<_> = found
        .into_iter()
        // a file of tests beside its module
        .filter(|path| !path.ends_with("tests.rs"))
        .map(|path| {
            let inside = path.strip_prefix(&root).expect("below src");
            let room = inside.iter().next().expect("a name").to_string_lossy();
            let room = room.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).expect("a source file can be read");
            (room, path, code_of(&text))
        })
        .collect();
    assert!(sources.len() > 50, "src was not found");
    sources
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn code_of(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths behind every `crate::`, two names deep: `crate::{a::b, c}` gives `a::b` and `c`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `livekit_crate::` is another word
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            read_tree(&code[at + "crate::".len()..], "", &mut found);
        }
    }
    found
}

/// Reads one path or group at the start of `text`; answers what is left.
fn read_tree<'a>(text: &'a str, above: &str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let left = read_tree(rest, above, found).trim_start();
            let left = left.strip_prefix(',').unwrap_or(left);
            // an alias, or something that is no import: go on behind it
            rest = if left.len() < rest.len() { left } else { &rest[1..] };
            if rest.is_empty() {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if above.is_empty() { name.to_owned() } else { format!("{above}::{name}") };
    match rest.strip_prefix("::") {
        Some(below) => {
            let deeper = read_tree(below, &path, found);
            if path.contains("::") {
                found.insert(path);
            }
            deeper
        }
        None => {
            if !name.is_empty() {
                found.insert(path);
            }
            rest
        }
    }
}

fn speaks_to(code: &str, foreign: &str) -> bool {
    code.match_indices(&format!("{foreign}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn groups_of_imports_are_understood() {
    let code = code_of(
        "use crate::{\n    a::{self, b::C, D},\n    e, // crate::hidden\n    f::G as H,\n};\nlet x = crate::i::j();\n#[cfg(test)]\nmod tests { use crate::k; }",
    );
    let found = imports(&code);
    for name in ["a::self", "a::b", "a::D", "e", "f::G", "i::j"] {
        assert!(found.contains(name), "{name} in {found:?}");
    }
    assert!(!found.iter().any(|import| import.contains("hidden") || import.starts_with('k')));
    assert!(speaks_to("use axum::Router", "axum") && !speaks_to("use utoipa_axum::x", "axum"));
}

#[test]
fn what_the_operations_page_names_exists() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md"))
        .unwrap();
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let figures: BTreeSet<_> = words.filter(|word| word.starts_with("livekit_replay_")).collect();
    assert!(figures.len() > 3);
    for figure in figures {
        let known = livekit_replay::telemetry::FIGURES.iter().any(|(name, _)| *name == figure);
        assert!(known, "{figure} is no figure of ours");
    }
    let told = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let refusals: Vec<_> = told
        .filter_map(|told| {
            let (status, code) = told.split_once(' ')?;
            Some((status.parse::<u16>().ok()?, code.trim_matches('`')))
        })
        .collect();
    assert!(refusals.len() > 8);
    for (status, name) in refusals {
        let code = Code::ALL.iter().find(|code| code.as_str() == name);
        let code = code.unwrap_or_else(|| panic!("{name} is no code of ours"));
        assert_eq!(livekit_replay::http::error::status_of(*code).as_u16(), status, "{name}");
    }
}
