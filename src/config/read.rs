//! Gives values their types. A value that does not fit becomes a fault and a harmless stand-in, so that reading goes
//! on and everything that is wrong is found in one pass; a configuration with faults is never handed out.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;

use super::{
    fault::{Fault, Origin},
    keys::{self, QUOTA_IN_GIB},
    layers::{Found, Raw, Values},
};

/// Reads typed values and collects faults.
pub(super) struct Reader<'a> {
    values: Values,
    pub faults: Vec<Fault>,
    /// What relative paths start from.
    cwd: &'a Path,
}

impl<'a> Reader<'a> {
    pub fn new(values: Values, faults: Vec<Fault>, cwd: &'a Path) -> Reader<'a> {
        Reader { values, faults, cwd }
    }

    /// Adds a fault of `key`, at the place its value came from.
    pub fn fault(&mut self, key: &str, problem: impl Into<String>, expected: impl Into<String>) {
        let origin = self.values.get(key).map(|found| found.origin.clone());
        let (key, problem) = (key.to_owned(), problem.into());
        self.faults.push(Fault { origin, key, problem, expected: expected.into() });
    }

    /// Whether anybody but the default file says something of `key`.
    pub fn is_given(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|found| found.origin != Origin::Default)
    }

    /// A setting that has to be there.
    pub fn missing(&mut self, key: &'static str, expected: &str) {
        let variable = keys::find(key).map_or(String::new(), |key| match key.short {
            Some(short) => format!(" ({short} or {})", key.variable()),
            None => format!(" ({})", key.variable()),
        });
        self.fault(key, format!("is not set{variable}"), expected);
    }

    /// `parse` over the value of `key`; nothing when it is not set or does not fit.
    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&Found) -> Option<T>,
    ) -> Option<T> {
        let found = self.values.get(key)?.clone();
        let parsed = parse(&found);
        if parsed.is_none() {
            let secret = keys::find(key).is_some_and(|key| key.secret);
            let problem = if secret {
                "does not fit".to_owned()
            } else {
                format!("{} does not fit", show(&found.raw))
            };
            self.fault(key, problem, expected);
        }
        parsed
    }

    /// A list of tables; in the environment, in a file or as an argument the same as JSON. The origin of a table's
    /// fault is the list's.
    pub fn tables(&mut self, key: &'static str, expected: &str) -> Vec<BTreeMap<String, Raw>> {
        let found = self.read(key, expected, |found| match &found.raw {
            Raw::List(items) => items.iter().map(as_table).collect(),
            Raw::Loose(text) => {
                let json: serde_json::Value = serde_json::from_str(text).ok()?;
                json.as_array()?.iter().map(|item| as_table(&from_json(item))).collect()
            }
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// A text that is not empty.
    pub fn text(&mut self, key: &'static str, expected: &str) -> Option<String> {
        self.read(key, expected, |found| as_text(&found.raw).filter(|text| !text.is_empty()))
    }

    /// A text of which `fits` is true.
    pub fn text_that(
        &mut self,
        key: &'static str,
        expected: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.read(key, expected, |found| as_text(&found.raw).filter(|text| fits(text)))
    }

    /// A secret of which `fits` is true.
    pub fn secret(
        &mut self,
        key: &'static str,
        expected: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Option<SecretString> {
        self.text_that(key, expected, fits).map(SecretString::from)
    }

    /// A secret, or several: a list in TOML, a line each in a variable or file. `fits` must be true of each.
    pub fn secrets(
        &mut self,
        key: &'static str,
        expected: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Vec<SecretString> {
        let texts = self.read(key, expected, |found| match &found.raw {
            Raw::List(items) => items.iter().map(as_text).collect(),
            Raw::Text(text) => Some(vec![text.clone()]),
            Raw::Loose(text) => {
                let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
                (!lines.is_empty()).then(|| lines.into_iter().map(str::to_owned).collect())
            }
            _ => None,
        });
        let texts: Vec<String> = texts.unwrap_or_default();
        for (index, text) in texts.iter().enumerate() {
            let nth = if texts.len() == 1 { String::new() } else { format!("item {} ", index + 1) };
            if !fits(text) {
                self.fault(key, format!("{nth}does not fit"), expected);
            }
            if texts[..index].contains(text) {
                self.fault(key, format!("{nth}stands there twice"), "each secret once");
            }
        }
        texts.into_iter().map(SecretString::from).collect()
    }

    /// A whole number in a range.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |found| as_integer(&found.raw).filter(|n| range.contains(n)))
    }

    /// A whole number in a range, as the type of the field (the range is the caller's to choose so that it fits).
    pub fn number<N: TryFrom<i64> + Default>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> N {
        self.integer(key, range).and_then(|value| N::try_from(value).ok()).unwrap_or_default()
    }

    /// Whole seconds, or another unit of `unit_millis` milliseconds.
    pub fn duration(
        &mut self,
        key: &'static str,
        unit_millis: u64,
        range: RangeInclusive<i64>,
    ) -> Option<Duration> {
        let count = u64::try_from(self.integer(key, range)?).ok()?;
        Some(Duration::from_millis(count * unit_millis))
    }

    /// A number in a range.
    pub fn float(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |found| {
            match &found.raw {
                Raw::Float(number) => Some(*number),
                #[expect(clippy::cast_precision_loss, reason = "the range is far below 2^52")]
                Raw::Integer { value, .. } => Some(*value as f64),
                Raw::Loose(text) => text.trim().parse().ok(),
                _ => None,
            }
            .filter(|number| range.contains(number))
        })
    }

    /// Bytes: a number, or a text with a unit. The old name of the quota counts in GiB.
    pub fn bytes(&mut self, key: &'static str) -> Option<i64> {
        let expected = "bytes as a number, or a text such as \"5 GiB\" (KiB, MiB, GiB, TiB)";
        self.read(key, expected, |found| match (&found.raw, &found.origin) {
            (Raw::Loose(text), Origin::Variable(name)) if name == QUOTA_IN_GIB => {
                parse_bytes(&format!("{text} GiB")).or_else(|| parse_bytes(text))
            }
            (Raw::Text(text) | Raw::Loose(text), _) => parse_bytes(text),
            (Raw::Integer { value, .. }, _) => (*value >= 0).then_some(*value),
            _ => None,
        })
    }

    /// Octal digits: `"2770"`, `2770` or `0o2770`.
    pub fn mode(&mut self, key: &'static str) -> Option<u32> {
        self.read(
            key,
            "an octal mode such as \"2770\" that lets the owner in (at least 0700)",
            |found| {
                match &found.raw {
                    Raw::Integer { value, octal: true } => u32::try_from(*value).ok(),
                    Raw::Integer { value, octal: false } => {
                        u32::from_str_radix(&value.to_string(), 8).ok()
                    }
                    Raw::Text(text) | Raw::Loose(text) => {
                        u32::from_str_radix(text.trim().trim_start_matches("0o"), 8).ok()
                    }
                    _ => None,
                }
                .filter(|mode| *mode <= 0o7777 && mode & 0o700 == 0o700)
            },
        )
    }

    /// A list of texts; in the environment separated by commas.
    pub fn list(&mut self, key: &'static str, expected: &str) -> Option<Vec<String>> {
        self.read(key, expected, |found| match &found.raw {
            Raw::List(items) => items.iter().map(as_text).collect(),
            Raw::Loose(text) => Some(
                text.split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
                    .collect(),
            ),
            _ => None,
        })
    }

    /// A list whose every item `parse` takes.
    pub fn list_of<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let items = self.list(key, expected).unwrap_or_default();
        let secret = keys::find(key).is_some_and(|key| key.secret);
        let mut parsed = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match parse(item) {
                Some(value) => parsed.push(value),
                None if secret => {
                    self.fault(key, format!("item {} does not fit", index + 1), expected)
                }
                None => self.fault(key, format!("{item:?} does not fit"), expected),
            }
        }
        parsed
    }

    /// A directory or file of ours; relative ones start from where the program was started.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let text = self.text_that(key, "a path on this machine", |text| {
            !text.is_empty() && !text.contains("://") && !text.contains('\0')
        })?;
        Some(absolute(self.cwd, Path::new(&text)))
    }

    /// A text that a rule of the domain is made from; its refusal is the operator's to read.
    pub fn rule<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        make: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key, expected)?;
        match make(&text) {
            Ok(rule) => Some(rule),
            Err(reason) => {
                // a regular expression's parser draws a picture above its last line
                let reason = reason.lines().last().unwrap_or_default().trim().to_owned();
                self.fault(key, reason, expected);
                None
            }
        }
    }
}

/// `path` with everything before it, without `.` and `..`.
pub(super) fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    whole
}

fn as_table(raw: &Raw) -> Option<BTreeMap<String, Raw>> {
    match raw {
        Raw::Table(members) => Some(members.clone()),
        _ => None,
    }
}

fn from_json(value: &serde_json::Value) -> Raw {
    match value {
        serde_json::Value::String(text) => Raw::Text(text.clone()),
        serde_json::Value::Array(items) => Raw::List(items.iter().map(from_json).collect()),
        serde_json::Value::Object(members) => Raw::Table(
            members.iter().map(|(name, value)| (name.clone(), from_json(value))).collect(),
        ),
        _ => Raw::Other("neither a text, a list nor a table"),
    }
}

pub(super) fn as_text(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Text(text) | Raw::Loose(text) => Some(text.clone()),
        _ => None,
    }
}

fn as_integer(raw: &Raw) -> Option<i64> {
    match raw {
        Raw::Integer { value, .. } => Some(*value),
        Raw::Loose(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `5 GiB`, `5GiB`, `0.5 gib`, `1048576`.
fn parse_bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * unit;
    // beyond 2^53 a number of bytes would not be exact (and is 8 PiB)
    #[expect(clippy::cast_possible_truncation, reason = "bounded just before")]
    (bytes <= 9_007_199_254_740_992.0).then_some(bytes as i64)
}

fn show(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) | Raw::Loose(text) => format!("{text:?}"),
        Raw::Integer { value, .. } => value.to_string(),
        Raw::Float(number) => number.to_string(),
        Raw::List(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        Raw::Table(_) => "a table".to_owned(),
        Raw::Other(what) => (*what).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_of_1024() {
        assert_eq!(parse_bytes("5 GiB"), Some(5 << 30));
        assert_eq!(parse_bytes("0.5gib"), Some(1 << 29));
        assert_eq!(parse_bytes("1048576"), Some(1 << 20));
        assert_eq!(parse_bytes("5 GB"), None);
        assert_eq!(parse_bytes("-1"), None);
        assert_eq!(parse_bytes("99999999 TiB"), None);
    }

    #[test]
    fn paths_become_absolute_and_plain() {
        let cwd = Path::new("/srv/app");
        assert_eq!(absolute(cwd, Path::new("./data/../clips")), Path::new("/srv/app/clips"));
        assert_eq!(absolute(cwd, Path::new("/x")), Path::new("/x"));
    }
}
