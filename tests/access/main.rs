//! Who may ask what: every row of `matrix.md` is asked as every caller, on both engines. A refusal changes no row of
//! any table, and no route of the document is without a row.

#[path = "../harness/mod.rs"]
mod harness;

mod ground;
mod receiver;
mod shares;
mod table;
mod world;

use std::fmt::Write;

use futures::future::join_all;
use ground::Ground;
use harness::{Engine, on_both_engines};
use serde_json::Value;
use table::{Answer, CALLERS, Row};
use world::World;

use shares::clips_are_shared;

on_both_engines!(everybody_is_answered_as_the_table_says, clips_are_shared);

const MATRIX: &str = include_str!("matrix.md");

/// Sections whose routes the document need not have.
const OUTSIDE_THE_DOCUMENT: &str = "At the root";

async fn everybody_is_answered_as_the_table_says(engine: Engine) {
    let world = World::build(engine).await;
    let ground = Ground::keep(&world.app).await;
    let mut faults = String::new();
    for row in table::read(MATRIX) {
        check(&world, &ground, &row, &mut faults).await;
    }
    world.app.stop().await;
    assert!(faults.is_empty(), "\n{faults}");
}

/// First everybody at once who is refused, and nothing has changed; then whoever is served, one after the other.
async fn check(world: &World, ground: &Ground, row: &Row, faults: &mut String) {
    let cells: Vec<(&str, &Answer)> = CALLERS
        .iter()
        .zip(&row.cells)
        .filter_map(|(caller, cell)| Some((*caller, cell.as_ref()?)))
        .collect();
    let (served, refused): (Vec<_>, Vec<_>) = cells.iter().partition(|(_, cell)| cell.is_success());
    let answers = join_all(refused.iter().map(|(caller, _)| ask(world, row, caller))).await;
    for ((caller, cell), got) in refused.iter().zip(&answers) {
        compare(row, caller, cell, got, faults);
    }
    if answers.iter().any(Answer::is_success) {
        ground.put_back(&world.app).await;
    }
    for table in ground.changed(&world.app).await {
        let Row { line, method, path, .. } = row;
        let _ = writeln!(faults, "{line}: {method} {path}: a refusal changed {table}");
    }
    for (caller, cell) in served {
        let got = ask(world, row, caller).await;
        compare(row, caller, cell, &got, faults);
        if row.method != "GET" && row.method != "HEAD" {
            ground.put_back(&world.app).await;
        }
    }
    // looking leaves its traces too: a stream's pin, an account made when first looked at
    if !ground.changed(&world.app).await.is_empty() {
        ground.put_back(&world.app).await;
    }
}

fn compare(row: &Row, caller: &str, cell: &Answer, got: &Answer, faults: &mut String) {
    if !cell.fits(got, row.method != "HEAD") {
        let body = row.body.as_deref().unwrap_or_default();
        let Row { line, method, path, .. } = row;
        let _ = writeln!(
            faults,
            "{line}: {method} {path} {body} as {caller}: {cell} expected, {got} answered"
        );
    }
}

async fn ask(world: &World, row: &Row, caller: &str) -> Answer {
    let root = world.app.base.trim_end_matches("/livekit-replay");
    let base = if row.section == OUTSIDE_THE_DOCUMENT { root } else { &world.app.base };
    let address = format!("{base}{}", world.fill(&row.path, &row.path));
    let method = row.method.parse().expect("a method");
    let mut request = world.app.http.request(method, address);
    if let Some(token) = world.tokens.get(caller) {
        request = request.bearer_auth(token);
    }
    if row.method == "POST" {
        request = request.header("Prefer", "respond-async");
    }
    if let Some(body) = &row.body {
        request = request.header("content-type", "application/json");
        request = request.body(world.fill(&row.path, body));
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    if response.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream") {
        // it has no end
        return Answer { status: Some(status), code: None, listed: None };
    }
    let body = response.bytes().await.expect("the whole answer");
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let list = body.as_object().and_then(|body| body.values().find_map(Value::as_array));
    Answer {
        status: Some(status),
        code: body["code"].as_str().filter(|_| status >= 400).map(str::to_owned),
        listed: list.map(Vec::len),
    }
}

/// The document's route of a row: the one with the fewest variable parts that fits.
fn route_of<'a>(document: &'a Value, row: &Row) -> Option<(&'a str, String)> {
    let base = if row.section == OUTSIDE_THE_DOCUMENT { "" } else { livekit_replay::http::BASE };
    let path = format!("{base}{}", row.path);
    let method = if row.method == "HEAD" { "get".to_owned() } else { row.method.to_lowercase() };
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .filter(|(template, methods)| {
            methods.get(&method).is_some() && table::is_of(template, &path)
        })
        .min_by_key(|(template, _)| template.matches('{').count())
        .map(|(template, _)| (template.as_str(), method))
}

#[test]
fn every_route_of_the_document_has_a_row_and_every_row_a_route() {
    let document = serde_json::to_value(livekit_replay::http::document()).expect("a document");
    let rows = table::read(MATRIX);
    let mut missing = Vec::new();
    for (template, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let wanted = Some((template.as_str(), method.clone()));
            if !rows.iter().any(|row| route_of(&document, row) == wanted) {
                missing.push(format!("no row asks {} {template}", method.to_uppercase()));
            }
        }
    }
    for row in rows {
        if row.section != OUTSIDE_THE_DOCUMENT && route_of(&document, &row).is_none() {
            missing.push(format!("line {}: there is no {} {}", row.line, row.method, row.path));
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}
