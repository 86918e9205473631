//! A question to the administrators' API, and how its answer is printed.

use clap::Args;
use http::Method;
use serde_json::Value;

use crate::{
    access::Permission,
    app::Failure,
    cli::{print, reach::Call},
    error::Error,
};

/// Prints JSON instead of columns.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Json {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Only says what would be done.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct DryRun {
    /// Only say what would be done
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// A question with the way its answer is printed.
pub(super) struct Ask {
    pub(super) call: Call,
    pub(super) show: Show,
    pub(super) json: bool,
}

/// How an answer is shown to people.
#[derive(Clone, Copy)]
pub(super) enum Show {
    Fields,
    /// The list under this name, these columns.
    Table(&'static str, &'static [&'static str]),
    /// The only thing in the list under this name, which is not found if there is none.
    Only(&'static str, &'static str),
    /// One of the decisions.
    Permission(Permission),
    /// A line instead of the answer.
    Says(&'static str),
    /// A run of scheduled work: what was asked for failed if its outcome is not `ok`.
    Run,
}

pub(super) fn show(answer: &Value, ask: &Ask) -> Result<(), Failure> {
    let answer = match ask.show {
        Show::Only(list, thing) => match &answer[list][0] {
            Value::Null => return Err(Error::not_found(thing).into()),
            found => found,
        },
        Show::Permission(permission) => decision(answer, permission)?,
        _ => answer,
    };
    if ask.json {
        print::json(answer)?;
    } else {
        tell(answer, ask.show);
    }
    match (ask.show, answer["outcome"].as_str()) {
        (Show::Run, Some(outcome)) if outcome != "ok" => Err(Failure::Failed(outcome.to_owned())),
        _ => Ok(()),
    }
}

fn tell(answer: &Value, show: Show) {
    match show {
        Show::Fields | Show::Only(..) | Show::Permission(_) | Show::Run => print::fields(answer),
        Show::Table(list, columns) => {
            let rows = answer[list].as_array().map(Vec::as_slice).unwrap_or_default();
            print::table(rows, columns);
            if let Some(total) = answer["total"].as_u64() {
                print::line(&format!("{total} in all"));
            }
        }
        Show::Says(text) => print::line(text),
    }
}

fn decision(answer: &Value, permission: Permission) -> Result<&Value, Failure> {
    let decisions = answer["permissions"].as_array().map(Vec::as_slice).unwrap_or_default();
    decisions
        .iter()
        .find(|decision| decision["name"] == permission.as_str())
        .ok_or_else(|| Error::not_found("permission").into())
}

pub(super) fn call(method: Method, path: &[&str]) -> Call {
    Call {
        method,
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        query: Vec::new(),
        body: None,
        as_user: None,
    }
}

pub(super) fn get(path: &[&str], show: Show, json: Json) -> Ask {
    Ask { call: call(Method::GET, path), show, json: json.json }
}

pub(super) fn change(method: Method, path: &[&str], body: Option<Value>, json: Json) -> Ask {
    Ask { call: Call { body, ..call(method, path) }, show: Show::Fields, json: json.json }
}

/// A run of scheduled work.
pub(super) fn maintenance(job: &str, dry_run: DryRun, json: Json) -> Ask {
    let mut ask = change(Method::POST, &["admin", "maintenance", job, "run"], None, json);
    ask.show = Show::Run;
    ask.call.query.push(("dryRun", dry_run.dry_run.to_string()));
    ask
}

pub(super) fn of_community(mut ask: Ask, community: Option<String>) -> Ask {
    ask.call.query.extend(community.map(|id| ("communityId", id)));
    ask
}
