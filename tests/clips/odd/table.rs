//! The table of `docs/cuts.md`: lines that tests wrote from what they saw.

use std::{fs, path::PathBuf, sync::Mutex};

use super::CASES;

const BEGIN: &str =
    "| case | what the clip holds | what the answer says | test |\n|---|---|---|---|\n";
static WRITING: Mutex<()> = Mutex::new(());

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/cuts.md")
}

/// The page's text before the table, its lines, and what follows.
fn parts(text: &str) -> (&str, Vec<&str>, &str) {
    let begin = text.find(BEGIN).expect("the page has the table") + BEGIN.len();
    let rest = &text[begin..];
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    (&text[..begin], rest[..end].lines().collect(), &rest[end..])
}

fn test_of(line: &str) -> &str {
    let cell = line.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
    cell.trim().trim_matches('`')
}

/// Prints a case's line, and compares it with the page's (or puts it there).
pub fn record(test: &str, case: &str, holds: &str, says: &str) {
    let line = format!("| {case} | {holds} | {says} | `{test}` |");
    println!("{line}");
    let _only_one = WRITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let text = fs::read_to_string(page()).expect("docs/cuts.md");
    let (before, lines, after) = parts(&text);
    if std::env::var_os("REPLAY_BLESS").is_none() {
        assert!(lines.contains(&line.as_str()), "not in docs/cuts.md (REPLAY_BLESS=1):\n{line}");
        return;
    }
    let mut lines: Vec<String> =
        lines.into_iter().filter(|old| test_of(old) != test).map(str::to_owned).collect();
    lines.push(line);
    let place = |line: &String| CASES.iter().position(|case| *case == test_of(line));
    lines.retain(|line| place(line).is_some());
    lines.sort_by_key(place);
    fs::write(page(), format!("{before}{}\n{after}", lines.join("\n"))).expect("the page");
}

#[test]
fn the_page_lists_every_case_once() {
    if std::env::var_os("REPLAY_BLESS").is_some() {
        return; // the others are writing
    }
    let text = fs::read_to_string(page()).expect("docs/cuts.md");
    let tests: Vec<&str> = parts(&text).1.into_iter().map(test_of).collect();
    assert_eq!(tests, CASES);
}
