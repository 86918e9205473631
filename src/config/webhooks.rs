//! `webhooks.endpoints`: tables, each of which must be whole. Secrets and addresses are never shown in a fault, since an
//! address may hold one, too.

use std::{collections::BTreeMap, path::Path};

use secrecy::SecretString;

use super::{
    Webhook, key_of,
    layers::Raw,
    load::is_plain_http_url,
    read::{Reader, absolute, as_text},
};
use crate::domain::event::EventKind;

const KEY: &str = "webhooks.endpoints";
const TABLES: &str = "a list of tables { url, secret or secret_file, events }";
/// More than anybody needs; each has a task of its own.
const MOST: usize = 32;

/// The endpoints; what is wrong with one is told with its place in the list.
pub(super) fn read(reader: &mut Reader<'_>, cwd: &Path) -> Vec<Webhook> {
    let mut endpoints: Vec<Webhook> = Vec::new();
    let tables = reader.tables(KEY, TABLES);
    if tables.len() > MOST {
        reader.fault(KEY, format!("has {} endpoints", tables.len()), format!("at most {MOST}"));
    }
    for (at, table) in tables.iter().enumerate() {
        let nth = format!("item {}", at + 1);
        if let Some(odd) = table.keys().find(|name| !NAMES.contains(&name.as_str())) {
            reader.fault(KEY, format!("{nth} has a member {odd:?}"), TABLES);
        }
        let url = read_url(reader, &nth, table);
        let secret = read_secret(reader, &nth, table, cwd);
        let events = read_events(reader, &nth, table);
        let (Some(url), Some(secret)) = (url, secret) else { continue };
        if endpoints.iter().any(|other| other.url == url) {
            reader.fault(KEY, format!("{nth} has the url of another"), "each address once");
        }
        endpoints.push(Webhook::new(url, secret, events));
    }
    endpoints
}

const NAMES: [&str; 4] = ["url", "secret", "secret_file", "events"];

fn read_url(reader: &mut Reader<'_>, nth: &str, table: &BTreeMap<String, Raw>) -> Option<String> {
    let url = table.get("url").and_then(as_text).filter(|url| is_fit(url));
    if url.is_none() {
        let expected = "https://host, or http:// on this machine";
        reader.fault(KEY, format!("{nth}: url is not set or does not fit"), expected);
    }
    url
}

/// What is sent holds people's names, and goes over nobody's wire in the clear.
fn is_fit(url: &str) -> bool {
    // a query is the operator's business
    let plain = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let without = format!("{scheme}://{host}{}", &rest[authority.len()..]);
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_here = name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    is_plain_http_url(&without) && !url.contains('#') && (scheme == "https" || is_here)
}

fn read_secret(
    reader: &mut Reader<'_>,
    nth: &str,
    table: &BTreeMap<String, Raw>,
    cwd: &Path,
) -> Option<SecretString> {
    let expected = "whsec_ and base64 of at least 24 bytes, or a text of at least 24 bytes";
    let direct = table.get("secret").and_then(as_text);
    let file = table.get("secret_file").and_then(as_text);
    let secret = match (direct, file) {
        (Some(secret), None) => secret,
        (None, Some(path)) => match std::fs::read_to_string(absolute(cwd, Path::new(&path))) {
            Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
            Err(error) => {
                reader.fault(KEY, format!("{nth}: secret_file cannot be read: {error}"), expected);
                return None;
            }
        },
        (Some(_), Some(_)) => {
            reader.fault(KEY, format!("{nth} has both secret and secret_file"), "one of the two");
            return None;
        }
        (None, None) => {
            reader.fault(KEY, format!("{nth}: secret is not set"), expected);
            return None;
        }
    };
    if key_of(&secret).is_none() {
        reader.fault(KEY, format!("{nth}: secret does not fit"), expected);
        return None;
    }
    Some(SecretString::from(secret))
}

fn read_events(
    reader: &mut Reader<'_>,
    nth: &str,
    table: &BTreeMap<String, Raw>,
) -> Vec<EventKind> {
    let known = || EventKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    let items = match table.get("events") {
        None => return Vec::new(),
        Some(Raw::List(items)) => items,
        Some(_) => {
            reader.fault(KEY, format!("{nth}: events is no list"), known());
            return Vec::new();
        }
    };
    let mut kinds = Vec::new();
    for item in items {
        let name = as_text(item).unwrap_or_default();
        match EventKind::from_name(&name) {
            Some(kind) => kinds.push(kind),
            None => {
                reader.fault(KEY, format!("{nth}: there is no event {name:?}"), known());
            }
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_reached_safely_or_on_this_machine() {
        for fit in [
            "https://app.example.org/hook?key=a",
            "https://u:p@app.example.org/hook",
            "http://127.0.0.1:8080/x",
            "http://localhost/x",
            "http://[::1]:9/x",
        ] {
            assert!(is_fit(fit), "{fit}");
        }
        for unfit in [
            "http://app.example.org/",
            "ftp://localhost/",
            "https://",
            "app",
            "http://localhost.example.org/",
            "https://a/#b",
        ] {
            assert!(!is_fit(unfit), "{unfit}");
        }
    }

    #[test]
    fn what_may_be_secret_of_an_address_is_not_shown() {
        let secret = SecretString::from("x".repeat(24));
        let shown = |url: &str| Webhook::new(url.to_owned(), secret.clone(), vec![]).shown_url();
        assert_eq!(shown("https://u:p@app.example.org/hook?key=a"), "https://app.example.org/hook");
        assert_eq!(shown("https://app.example.org"), "https://app.example.org/");
    }
}
