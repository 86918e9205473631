//! What commands print: JSON as it is, or aligned columns for people.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use crate::app::Failure;

/// One line of output. A reader that has gone (`| head`) has what it wanted.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Indented JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Failed(format!("writing JSON: {error}")))?;
    line(&text);
    Ok(())
}

/// One thing: a line per field.
pub(super) fn fields(value: &Value) {
    match value {
        Value::Object(fields) => {
            let width = fields.keys().map(String::len).max().unwrap_or(0);
            for (name, value) in fields {
                line(&format!("{name:width$}  {}", cell(value)));
            }
        }
        Value::Null => {}
        other => line(&cell(other)),
    }
}

/// A list: a line each, the named fields as columns.
pub(super) fn table(rows: &[Value], columns: &[&str]) {
    let lines: Vec<Vec<String>> =
        std::iter::once(columns.iter().map(|name| (*name).to_owned()).collect())
            .chain(rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect()))
            .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &lines {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
        line(padded.join("  ").trim_end());
    }
}

/// A value in a line. Names are hostile: control characters would speak to the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        // JSON escapes some control characters, but not those above ASCII
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_do_not_reach_the_terminal() {
        assert_eq!(cell(&Value::from("a\u{1b}[2Jb\n")), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(cell(&serde_json::json!(["a\u{9b}2J"])), "[\"a\u{fffd}2J\"]");
        assert_eq!(cell(&Value::Null), "-");
    }
}
