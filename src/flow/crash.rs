//! Named places where a drill makes the process die, so that the order of rows and files can be tested for real.
//!
//! `REPLAY_CRASH_AT=between-rename-and-commit` aborts at that place, `during-mux:3` at the third time it is reached.
//! Without the variable a place costs one read of an atomic. The names are listed in `docs/invariants.md`.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// The variable that names the place.
pub const VARIABLE: &str = "REPLAY_CRASH_AT";

struct Drill {
    name: String,
    passes_left: AtomicU64,
}

static DRILL: OnceLock<Option<Drill>> = OnceLock::new();

/// Dies here if the drill says so: no destructor runs, nothing is flushed, as with `kill -9`.
pub fn point(name: &str) {
    let drill = DRILL.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?));
    if let Some(drill) = drill
        && drill.name == name
        && drill.passes_left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        tracing::error!(point = name, "crash drill");
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Drill> {
    let (name, times) = match text.rsplit_once(':') {
        Some((name, times)) => (name, times.parse().ok().filter(|times| *times > 0)?),
        None => (text, 1),
    };
    (!name.is_empty()).then(|| Drill { name: name.to_owned(), passes_left: AtomicU64::new(times) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_names_a_place_and_how_often_it_is_passed() {
        let drill = parse("during-mux:3").expect("valid");
        assert_eq!((drill.name.as_str(), drill.passes_left.into_inner()), ("during-mux", 3));
        assert_eq!(parse("after-row").expect("valid").passes_left.into_inner(), 1);
        assert!(parse("").is_none());
        assert!(parse("during-mux:0").is_none());
        assert!(parse("during-mux:often").is_none());
    }
}
