//! Finds the values: defaults < file < environment < flags, each with where it came from. Knows no types yet.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Sources,
    fault::{Fault, Origin},
    keys::{self, KEYS, Key},
};

/// The lowest layer.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A value before it has a type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// A text in TOML.
    Text(String),
    /// A whole number in TOML, and whether it was written in octal (`0o…`).
    Integer { value: i64, octal: bool },
    /// A number in TOML.
    Float(f64),
    /// An array in TOML.
    List(Vec<Raw>),
    /// A table in TOML.
    Table(BTreeMap<String, Raw>),
    /// Something that no setting is: what it is.
    Other(&'static str),
    /// A variable or argument: text that may stand for anything.
    Loose(String),
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub raw: Raw,
    pub origin: Origin,
}

/// The values by key, the highest layer's of each.
pub(super) type Values = BTreeMap<&'static str, Found>;

/// Gathers all layers; what is wrong on the way is added to `faults`.
pub(super) fn gather(sources: &Sources, faults: &mut Vec<Fault>) -> Values {
    let mut values = Values::new();
    read_toml(DEFAULTS, &|_| Origin::Default, &mut values, faults);
    if let Some(path) = &sources.file {
        read_file(path, &mut values, faults);
    }
    for key in KEYS {
        // the long form wins over the short one
        for variable in key.short.map(str::to_owned).into_iter().chain([key.variable()]) {
            read_variable(key, &variable, sources, &mut values, faults);
        }
    }
    find_unknown_variables(sources, faults);
    for (path, text, flag) in &sources.flags {
        let origin = Origin::Flag(flag.clone());
        match keys::find(path) {
            Some(key) => {
                values.insert(key.path, Found { raw: Raw::Loose(text.clone()), origin });
            }
            None => faults.push(unknown(path, origin)),
        }
    }
    values
}

fn read_file(path: &Path, values: &mut Values, faults: &mut Vec<Fault>) {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let origin = |at: Range<usize>| Origin::File {
                path: path.to_owned(),
                line: text.get(..at.start).unwrap_or(&text).matches('\n').count() + 1,
            };
            read_toml(&text, &origin, values, faults);
        }
        Err(error) => faults.push(Fault {
            origin: None,
            key: String::new(),
            problem: format!("the file {} cannot be read: {error}", path.display()),
            expected: "a TOML file at --config".to_owned(),
        }),
    }
}

type OriginOf<'a> = &'a dyn Fn(Range<usize>) -> Origin;

fn read_toml(text: &str, origin: OriginOf<'_>, values: &mut Values, faults: &mut Vec<Fault>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        faults.push(Fault {
            origin: Some(origin(error.span().unwrap_or(0..0))),
            key: String::new(),
            problem: error.message().to_owned(),
            expected: "valid TOML".to_owned(),
        });
    }
    walk("", table.get_ref(), origin, values, faults);
}

fn walk(
    section: &str,
    table: &DeTable<'_>,
    origin: OriginOf<'_>,
    values: &mut Values,
    faults: &mut Vec<Fault>,
) {
    for (name, value) in table {
        let path = if section.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{section}.{}", name.get_ref())
        };
        let is_section = KEYS
            .iter()
            .any(|key| key.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')));
        match (value.get_ref(), keys::find(&path)) {
            (DeValue::Table(inner), None) if is_section => {
                walk(&path, inner, origin, values, faults);
            }
            (_, Some(key)) => {
                let found = Found { raw: raw(value), origin: origin(value.span()) };
                values.insert(key.path, found);
            }
            _ => faults.push(unknown(&path, origin(name.span()))),
        }
    }
}

fn raw(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) => Raw::Integer { value, octal: number.radix() == 8 },
            Err(_) => Raw::Other("a number out of range"),
        },
        DeValue::Float(number) => {
            number.as_str().parse().map_or(Raw::Other("a number out of range"), Raw::Float)
        }
        DeValue::Array(items) => Raw::List(items.iter().map(raw).collect()),
        DeValue::Boolean(_) => Raw::Other("true or false"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(inner) => Raw::Table(
            inner.iter().map(|(name, value)| (name.get_ref().to_string(), raw(value))).collect(),
        ),
    }
}

fn read_variable(
    key: &'static Key,
    variable: &str,
    sources: &Sources,
    values: &mut Values,
    faults: &mut Vec<Fault>,
) {
    // compose files pass unset variables on as empty ones
    let given = |name: &str| sources.env.get(name).filter(|text| !text.is_empty());
    let direct = given(variable);
    let file_variable = format!("{variable}_FILE");
    let from_file = if key.secret { given(&file_variable) } else { None };
    if direct.is_some() && from_file.is_some() {
        faults.push(Fault {
            origin: Some(Origin::Variable(file_variable.clone())),
            key: key.path.to_owned(),
            problem: format!("{variable} is set too"),
            expected: "one of the two".to_owned(),
        });
    }
    if let Some(path) = from_file {
        let path = PathBuf::from(path);
        let origin = Origin::SecretFile { variable: file_variable, path: path.clone() };
        match std::fs::read_to_string(&path) {
            // editors and `echo` end a file with a line feed that is not part of the secret
            Ok(text) => {
                let raw = Raw::Loose(text.trim_end_matches(['\r', '\n']).to_owned());
                values.insert(key.path, Found { raw, origin });
            }
            Err(error) => faults.push(Fault {
                origin: Some(origin),
                key: key.path.to_owned(),
                problem: format!("cannot be read: {error}"),
                expected: "a readable file that holds the secret".to_owned(),
            }),
        }
    }
    if let Some(text) = direct {
        let origin = Origin::Variable(variable.to_owned());
        values.insert(key.path, Found { raw: Raw::Loose(text.clone()), origin });
    }
}

fn find_unknown_variables(sources: &Sources, faults: &mut Vec<Fault>) {
    for name in sources.env.keys().filter(|name| name.starts_with("REPLAY__")) {
        let known = KEYS.iter().any(|key| {
            let variable = key.variable();
            *name == variable || (key.secret && *name == format!("{variable}_FILE"))
        });
        if !known {
            let path = name.trim_start_matches("REPLAY__").replace("__", ".").to_lowercase();
            faults.push(unknown(&path, Origin::Variable(name.clone())));
        }
    }
}

fn unknown(path: &str, origin: Origin) -> Fault {
    let problem = match (keys::nearest(path), &origin) {
        (Some(near), Origin::Variable(_)) => {
            format!("there is no such setting; did you mean {}?", near.variable())
        }
        (Some(near), _) => format!("there is no such setting; did you mean {}?", near.path),
        (None, _) => "there is no such setting".to_owned(),
    };
    Fault { origin: Some(origin), key: path.to_owned(), problem, expected: String::new() }
}
