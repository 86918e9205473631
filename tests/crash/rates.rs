//! Rate limits are one count for both processes, and every answer says how it stands.

use std::time::Duration;

use futures::future::join_all;
use livekit_replay::clock::{Clock, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{support::postgres_url::postgres_url, two::Two};

const LIMIT: usize = 7;
const REQUESTS: usize = 40;
/// Begun this shortly before a minute's end they would hardly be done in it.
const ROOM_FOR: i64 = 10;

/// What an answer says of the limit.
#[derive(Debug)]
struct Told {
    status: u16,
    limit: usize,
    remaining: usize,
    reset: u64,
    retry_after: Option<u64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_count_the_same_requests() {
    if postgres_url().is_none() {
        return;
    }
    let settings = [
        ("REPLAY__RATE_LIMITS__START_PER_MINUTE", "7"),
        ("REPLAY__RATE_LIMITS__CAPTURE_PER_MINUTE", "7"),
        ("REPLAY__RATE_LIMITS__DELETE_PER_MINUTE", "7"),
    ];
    let two = Two::with(&settings).await;
    // each is refused for what it asks, after it was counted
    let session = "0192f0c1-2222-7000-8000-000000000000";
    let capture = json!({ "sessionId": session, "durationSeconds": 5 });
    for (what, method, path, body) in [
        ("start", Method::POST, "/start", json!({ "roomName": "red-nobody" })),
        ("capture", Method::POST, "/capture", capture),
        ("delete", Method::DELETE, "/clips/none", Value::Null),
    ] {
        in_one_minute(&two, what, &method, path, &body).await;
    }
    let db = two.database().await;
    two.close(db).await;
}

fn minute() -> i64 {
    SystemClock.now().as_micros().div_euclid(60_000_000)
}

/// A burst by a user of its own, again with another if the minute ended on it: that was two windows.
async fn in_one_minute(two: &Two, what: &str, method: &Method, path: &str, body: &Value) {
    for attempt in 0..5 {
        let second = SystemClock.now().as_micros().div_euclid(1_000_000).rem_euclid(60);
        if second > 60 - ROOM_FOR {
            // no verdict hangs on this: the next minute is a better one
            tokio::time::sleep(Duration::from_secs((60 - second).unsigned_abs())).await;
        }
        let user = format!("{what}{attempt}");
        let began = minute();
        let burst = (0..REQUESTS).map(|turn| ask(two, turn, &user, method, path, body));
        let told = join_all(burst).await;
        let limits = join_all((0..2).map(|turn| own_limits(two, turn, &user))).await;
        if minute() == began {
            judge(what, &told);
            for limits in limits {
                let rate = &limits["rate"][what];
                let stands = (&rate["limit"], &rate["remaining"]);
                assert_eq!(stands, (&json!(LIMIT), &json!(0)), "{limits:#}");
            }
            return;
        }
    }
    panic!("never {REQUESTS} requests within a minute");
}

async fn own_limits(two: &Two, turn: usize, user: &str) -> Value {
    two.ask(turn, Method::GET, user, "/me/limits", |request| request).await.1
}

async fn ask(
    two: &Two,
    turn: usize,
    user: &str,
    method: &Method,
    path: &str,
    body: &Value,
) -> Told {
    let process = two.process(turn);
    let answer = two.first.send(process, method.clone(), user, path, |request| match body {
        Value::Null => request,
        body => request.json(body),
    });
    let answer = answer.await.unwrap();
    let header = |name: &str| {
        let text = answer.headers().get(name)?.to_str().unwrap();
        Some(text.parse::<u64>().unwrap())
    };
    let must = |name: &str| header(name).unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    let small = |number: u64| usize::try_from(number).unwrap();
    Told {
        status: answer.status().as_u16(),
        limit: small(must("ratelimit-limit")),
        remaining: small(must("ratelimit-remaining")),
        reset: must("ratelimit-reset"),
        retry_after: header("retry-after"),
    }
}

fn judge(what: &str, told: &[Told]) {
    let (refused, taken): (Vec<_>, Vec<_>) = told.iter().partition(|one| one.status == 429);
    println!("{what}: {} of {REQUESTS} requests taken by two processes", taken.len());
    assert_eq!(taken.len(), LIMIT, "{told:?}");
    assert!(told.iter().all(|one| one.limit == LIMIT && (1..=60).contains(&one.reset)), "{told:?}");
    // each of them was told another number: nobody was counted twice, and none not at all
    let mut remaining: Vec<usize> = taken.iter().map(|one| one.remaining).collect();
    remaining.sort_unstable();
    assert_eq!(remaining, (0..LIMIT).collect::<Vec<_>>(), "{told:?}");
    for one in refused {
        assert_eq!((one.remaining, one.retry_after), (0, Some(one.reset)), "{one:?}");
    }
}
