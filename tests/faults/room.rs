//! Room on the disk: what is promised already is not broken by another start, and health says how it stands.

use std::path::Path;

use livekit_replay::flow::stores;
use serde_json::json;

use crate::{
    house::House,
    on_both_engines,
    support::{On, Place},
};

on_both_engines!(
    a_start_that_would_break_older_promises_is_refused,
    health_says_how_full_a_store_is
);

/// Bytes a buffer is taken to need in a minute before it is measured.
const MINUTE: u64 = 60_000_000;

/// How often four start at the same moment: two that did not see each other both passed in about one round of a hundred.
const ROUNDS: usize = 10;

/// Settings under which one and a half buffers fit on the disk as it is now.
fn room_for_one(at: &Path) -> [(&'static str, String); 2] {
    let free = stores::space_of(at).expect("a file system").free;
    let minutes = (free / 4 / MINUTE).min(240);
    assert!(minutes >= 11, "needs 3 GB of free space");
    let reserve = free - minutes * MINUTE * 3 / 2;
    [
        ("buffer.cleanup_minutes", minutes.to_string()),
        ("storage.min_free_bytes", reserve.to_string()),
    ]
}

async fn a_start_that_would_break_older_promises_is_refused(on: On) {
    let place = Place::new(on).await;
    let settings = room_for_one(&place.dir);
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let house = House::with(place, Default::default(), &settings).await;
    let users = ["ann", "bob", "cid", "dan"];
    for user in users {
        house.shares(user);
    }
    // a buffer that runs holds back the next one, until it has ended
    for _ in 0..ROUNDS {
        let winner = one_of(&house, users).await;
        assert_eq!(house.post(winner.0, &winner.1, json!({})).await.status, 200);
    }
    assert_eq!(house.start("dan").await.status, 201);
    assert_eq!(house.start("ann").await.told(), (507, "insufficient_disk"));
    house.close().await;
}

/// All start at once, where one fits: who was taken, and the path that ends it.
async fn one_of(house: &House, users: [&'static str; 4]) -> (&'static str, String) {
    let answers = futures::future::join_all(users.map(|user| house.start(user))).await;
    let (taken, refused): (Vec<_>, Vec<_>) =
        users.into_iter().zip(&answers).partition(|(_, one)| one.status == 201);
    assert_eq!(taken.len(), 1, "{answers:#?}");
    for (_, answer) in refused {
        assert_eq!(answer.told(), (507, "insufficient_disk"), "{answer:?}");
        assert!(answer.body["neededBytes"].as_u64() > answer.body["freeBytes"].as_u64());
    }
    let (user, answer) = taken[0];
    (user, format!("/stop/{}", answer.body["id"].as_str().expect("an id")))
}

async fn health_says_how_full_a_store_is(on: On) {
    let house = House::open(on).await;
    let health = house.health().await;
    for store in ["buffer", "clips"] {
        let part = &health["storage"][store];
        let used = part["usedPercent"].as_u64().expect("a percentage");
        let expected = match used {
            98.. => "critical",
            85.. => "high",
            _ => "fine",
        };
        assert_eq!(part["watermark"], expected, "{part}");
        // nothing is said before some minutes were measured
        assert!(part["hoursLeft"].is_null(), "{part}");
    }
    let url = format!("{}/metrics", house.app.running.url());
    let figures = house.app.http.get(url).send().await.expect("an answer");
    if figures.status() == 200 {
        let text = figures.text().await.expect("text");
        assert!(text.contains("livekit_replay_store_watermark{store=\"buffer\"}"), "{text}");
    }
    house.close().await;
}
