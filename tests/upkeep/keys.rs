//! An `Idempotency-Key` and who holds it.

use std::time::Duration;

use livekit_replay::{
    domain::id::UserId,
    error::Code,
    flow::idempotency::{self, Begun, Claim, Held, Kept},
};

use crate::bench::Bench;

const LEASE: Duration = Duration::from_secs(30);

fn claim(key: &str) -> Claim {
    Claim { user: UserId::new("ann"), route: "POST /capture", key: key.to_owned() }
}

fn kept(body: &str) -> Kept {
    Kept { status: 202, body: body.to_owned(), location: None }
}

async fn first(bench: &Bench, key: &str) -> Held {
    match idempotency::begin(&bench.deps, &claim(key), "hash", LEASE).await.expect("claimed") {
        Begun::First(held) => held,
        Begun::Repeat(kept) => panic!("kept already: {kept:?}"),
    }
}

/// A request that takes longer than it may is overtaken by its repeat: of the two one is accepted.
pub async fn who_takes_too_long_with_a_key_is_not_accepted_beside_the_repeat(bench: Bench) {
    let conn = bench.deps.db.conn();
    let late = first(&bench, "overtaken").await;
    bench.pass_seconds(31);
    let repeat = first(&bench, "overtaken").await;
    // what the late one does to the key is nothing, while the repeat runs and afterwards
    idempotency::release(&bench.deps, &late).await.expect("asked");
    let refused = idempotency::keep_in(conn, &late, kept("late")).await.expect_err("overtaken");
    assert_eq!(refused.code(), Code::Overloaded);
    idempotency::keep_in(conn, &repeat, kept("repeat")).await.expect("accepted");
    let refused = idempotency::keep_in(conn, &late, kept("late")).await.expect_err("overtaken");
    assert_eq!(refused.code(), Code::Overloaded);
    idempotency::release(&bench.deps, &late).await.expect("asked");
    let told = idempotency::begin(&bench.deps, &claim("overtaken"), "hash", LEASE).await;
    assert_eq!(told.expect("kept"), Begun::Repeat(kept("repeat")));

    // one that is not overtaken is accepted, however late
    let slow = first(&bench, "slow").await;
    bench.pass_seconds(3600);
    idempotency::keep_in(conn, &slow, kept("slow")).await.expect("accepted");
    bench.close().await;
}
