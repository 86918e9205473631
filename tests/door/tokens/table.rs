//! The tables of `docs/tokens.md`: lines that tests wrote from what they saw.

use std::{fs, path::PathBuf, sync::Mutex};

static WRITING: Mutex<()> = Mutex::new(());

/// One table, under a line `<!-- name -->`.
pub struct Table {
    name: &'static str,
    columns: [&'static str; 3],
    lines: Vec<String>,
    wrong: Vec<String>,
}

impl Table {
    pub fn new(name: &'static str, columns: [&'static str; 3]) -> Table {
        Table { name, columns, lines: Vec::new(), wrong: Vec::new() }
    }

    /// A case: what is `seen` must be what is `expected`.
    pub fn row(&mut self, settings: &str, case: &str, expected: &str, seen: &str) {
        if seen != expected {
            self.wrong.push(format!("{settings}: {case}: expected {expected}, seen {seen}"));
        }
        self.lines.push(format!("| {settings} | {case} | {seen} |"));
    }

    /// Judges the cases, then the page; or writes the page.
    pub fn close(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/tokens.md");
        let _only_one = WRITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let text = fs::read_to_string(&page).expect("docs/tokens.md");
        let mark = format!("<!-- {} -->\n", self.name);
        let begin = text.find(&mark).expect("the page has a place for the table") + mark.len();
        let lines = text[begin..].split_inclusive('\n').take_while(|line| line.starts_with('|'));
        let end = begin + lines.map(str::len).sum::<usize>();
        let [first, second, third] = self.columns;
        let head = format!("| {first} | {second} | {third} |\n|---|---|---|\n");
        let table = format!("{head}{}\n", self.lines.join("\n"));
        if std::env::var_os("REPLAY_BLESS").is_some() {
            fs::write(&page, format!("{}{table}{}", &text[..begin], &text[end..]))
                .expect("the page");
        } else {
            assert_eq!(&text[begin..end], table, "docs/tokens.md differs: REPLAY_BLESS=1");
        }
    }
}
