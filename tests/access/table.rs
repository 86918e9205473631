//! `matrix.md` read: rows of requests with what each caller is answered.

use std::fmt;

/// Who asks, in the order of the table's columns.
pub const CALLERS: [&str; 10] = [
    "nobody",
    "expired",
    "other",
    "member",
    "moderator",
    "admin",
    "foreign",
    "root",
    "removed",
    "owner",
];

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    pub line: usize,
    pub section: String,
    pub method: String,
    /// With its query; `{…}` stands for something of the world.
    pub path: String,
    pub body: Option<String>,
    /// By caller; `None` is not asked.
    pub cells: Vec<Option<Answer>>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `None` is any success.
    pub status: Option<u16>,
    /// The problem's code.
    pub code: Option<String>,
    /// The length of the list.
    pub listed: Option<usize>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        self.status.is_none_or(|status| status < 400)
    }

    /// Whether `got` is what the cell says; an answer without a body has no code.
    pub fn fits(&self, got: &Answer, has_body: bool) -> bool {
        let status = match self.status {
            Some(status) => got.status == Some(status),
            None => got.status.is_some_and(|status| (200..300).contains(&status)),
        };
        status
            && (!has_body || self.code == got.code)
            && (self.listed.is_none() || self.listed == got.listed)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("2xx")?,
        }
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        self.listed.map_or(Ok(()), |listed| write!(f, " ({listed})"))
    }
}

/// All rows of the table.
///
/// # Panics
/// With the number of the line that is not one.
pub fn read(text: &str) -> Vec<Row> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text.trim())) {
        if let Some(title) = text.strip_prefix("## ") {
            section = title.to_owned();
        }
        let Some(cells) = text.strip_prefix('|').and_then(|text| text.strip_suffix('|')) else {
            continue;
        };
        let mut cells = cells.split('|').map(str::trim);
        let (Some(request), Some(body)) = (cells.next(), cells.next()) else {
            panic!("line {line}: a row begins with request and body")
        };
        let cells: Vec<&str> = cells.collect();
        if request == "request" {
            assert_eq!(cells, CALLERS, "line {line}: the callers");
            continue;
        }
        let Some((method, path)) = request.trim_matches('`').split_once(' ') else {
            assert!(request.starts_with("---"), "line {line}: no request");
            continue;
        };
        assert_eq!(cells.len(), CALLERS.len(), "line {line}: a cell for every caller");
        rows.push(Row {
            line,
            section: section.clone(),
            method: method.to_owned(),
            path: path.to_owned(),
            body: Some(body.trim_matches('`').to_owned()).filter(|body| !body.is_empty()),
            cells: cells.iter().map(|text| cell(text, line)).collect(),
        });
    }
    rows
}

fn cell(text: &str, line: usize) -> Option<Answer> {
    if text == "-" {
        return None;
    }
    let (status, rest) = text.split_once(' ').unwrap_or((text, ""));
    let status = (status != "2xx").then(|| {
        status
            .parse()
            .unwrap_or_else(|_| panic!("line {line}: {text} does not begin with a status"))
    });
    let listed = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let code = match (status, rest) {
        _ if listed.is_some() => None,
        (Some(401), "") => Some("unauthenticated"),
        (Some(404), "") => Some("not_found"),
        (Some(403), "owner") => Some("not_owner"),
        (Some(403), "right") => Some("permission_denied"),
        (Some(400..), "") => panic!("line {line}: {text} needs a code"),
        (_, "") => None,
        (_, code) => Some(code),
    };
    Some(Answer {
        status,
        code: code.map(str::to_owned),
        listed: listed.map(|text| text.parse().expect("a number in brackets")),
    })
}

/// Whether a path of the table is one of the route that a document calls `template`.
pub fn is_of(template: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let (mut expected, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return true,
            (Some(expected), Some(given)) => {
                let variable = expected.starts_with('{') && !given.is_empty();
                if !variable && expected != given {
                    return false;
                }
            }
            _ => return false,
        }
    }
}
