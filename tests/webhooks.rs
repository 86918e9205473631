//! LiveKit's webhooks: exactly its bytes and headers are taken, nothing else leaves a trace, and in whatever order
//! and number events come, the same is true in the end.

mod harness;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::{
    App, Engine, Loops, Setup, dump,
    hooks::{signed, with_id},
    now_ms, on_both_engines,
};
use livekit_api::services::egress::{EgressClient, EgressOutput, TrackCompositeOptions};
use livekit_protocol as proto;
use livekit_replay::{
    domain::{
        id::{CommunityId, SessionId, UserId},
        lifecycle::SessionStatus,
    },
    flow,
    simulator::{CallAction, CallFault, Media, Share, ShareHandle},
    store::{epoch, member, session},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

on_both_engines!(
    the_bytes_of_a_real_server_are_taken,
    what_is_not_livekits_leaves_no_trace,
    every_order_of_events_ends_in_the_same_state,
    an_end_that_livekit_contradicts_is_not_believed,
    what_is_not_ours_is_nothing_to_us,
    a_published_share_starts_a_buffer_where_that_is_wanted,
);

const SILENT: Share = Share { width: 640, height: 360, audio: false, media: Media::None };

// ---- bodies as a real server (1.13, egress 1.14) sent them; only names and directories are put in ----

const PUBLISHED: &str = include_str!("fixtures/livekit/track_published.json");
const UNPUBLISHED: &str = include_str!("fixtures/livekit/track_unpublished.json");
const STARTED: &str = include_str!("fixtures/livekit/egress_started.json");
const ACTIVE: &str = include_str!("fixtures/livekit/egress_updated-active.json");
const ENDING: &str = include_str!("fixtures/livekit/egress_updated-ending.json");
const ENDED: &str = include_str!("fixtures/livekit/egress_ended-complete.json");

/// A session and what it records, to speak of in events.
struct Story {
    user: String,
    session: SessionId,
    egress: String,
    directory: String,
    share: ShareHandle,
}

impl Story {
    /// Begins in LiveKit and in the service; answers when LiveKit records.
    async fn begin(app: &App, user: &str, room: &str) -> Story {
        let share = app.sim.publish_share(room, user, SILENT).expect("a share");
        let (status, started) = app.post(user, "/start", json!({ "roomName": room })).await;
        assert_eq!(status, 201, "{started:#}");
        let egress = started["egressId"].as_str().expect("an egress").to_owned();
        app.wait_for_egress(&egress, "EGRESS_ACTIVE").await;
        let views = app.sim.egresses();
        let view = views.iter().find(|one| one.egress_id == egress).expect("the egress");
        Story {
            user: user.to_owned(),
            session: SessionId::new(started["id"].as_str().expect("an id")),
            directory: view.directory.clone(),
            egress,
            share,
        }
    }

    /// A recorded body that speaks of this story, under an event id of its own.
    fn tell(&self, recorded: &str) -> String {
        let id = format!("EV_{}", uuid::Uuid::now_v7().simple());
        let last = recorded.rfind("\"id\":\"EV_").expect("an event id");
        let body = format!("{}\"id\":\"{id}\"}}", &recorded[..last]);
        body.replace("EG_xj3qG3psyF5x", &self.egress)
            .replace("/out/81e07377-5c98-4c70-91be-1be22d755933/1", &self.directory)
            .replace("replay-room", &self.share.room)
            .replace("TR_VSUfXMyaobD8c2", &self.share.video)
            .replace("\"alice\"", &format!("{:?}", self.share.identity))
    }

    async fn row(&self, app: &App) -> session::Model {
        session::load(app.deps.db.conn(), &self.session).await.expect("the session")
    }

    async fn epochs(&self, app: &App) -> Vec<epoch::Model> {
        epoch::list(app.deps.db.conn(), &self.session).await.expect("epochs")
    }

    /// What can be told apart, but for times and ids.
    async fn state(&self, app: &App) -> Value {
        let row = self.row(app).await;
        let epochs: Vec<Value> = self
            .epochs(app)
            .await
            .iter()
            .map(|epoch| {
                json!({
                    "number": epoch.number, "status": format!("{:?}", epoch.status),
                    "outcome": epoch.outcome, "mine": epoch.egress_id.as_ref().map(|id| id.as_str() == self.egress),
                    "mediaStartedAt": epoch.media_started_at.map(|at| at.to_rfc3339()), "error": epoch.error,
                })
            })
            .collect();
        json!({
            "status": row.status.to_string(), "holdsPlace": row.holds_place,
            "endReason": row.end_reason.map(|reason| reason.to_string()),
            "ended": row.ended_at.is_some(), "shareLost": row.share_lost_at.is_some(), "epochs": epochs,
        })
    }
}

fn quiet(engine: Engine) -> Setup {
    let setup = Setup::on(engine).change(|config| {
        config.buffer.no_segment = Duration::from_secs(3600);
        // many sessions at once are refused where the disk could not hold what they may grow to
        config.buffer.length = Duration::from_secs(60);
        config.buffer.cleanup = Duration::from_secs(120);
        config.limits.community_max_concurrent = 100;
        config.sessions.rejoin = Duration::from_secs(600);
    });
    setup.loops(Loops::None).without_webhooks()
}

async fn the_bytes_of_a_real_server_are_taken(engine: Engine) {
    let app = quiet(engine).start("hooks-taken").await;
    let story = Story::begin(&app, "alice", "app-real").await;
    assert_eq!(story.epochs(&app).await[0].status, epoch::EpochStatus::Starting);
    app.good_hook(&story.tell(STARTED)).await;
    assert_eq!(story.epochs(&app).await[0].status, epoch::EpochStatus::Starting);
    app.good_hook(&story.tell(ACTIVE)).await;
    let epochs = story.epochs(&app).await;
    assert_eq!(epochs[0].status, epoch::EpochStatus::Active);
    let first_packet = epochs[0].media_started_at.expect("the time of the first packet");
    assert_eq!(first_packet.as_micros(), 1_795_219_417_934_494);

    // newer servers: states, sources and fields that nobody knows yet; numbers for names; a prefix some proxies add
    let newer = story.tell(ENDING).replace("EGRESS_ENDING", "EGRESS_DREAMING");
    app.good_hook(
        &newer.replace("\"sourceType\"", "\"unheardOf\":{\"a\":[1,null]},\"sourceType\""),
    )
    .await;
    app.good_hook(&story.tell(PUBLISHED).replace("SCREEN_SHARE", "SCREEN_HOLOGRAM")).await;
    app.good_hook(&story.tell(ACTIVE).replace("\"EGRESS_ACTIVE\"", "1")).await;
    let body = story.tell(ACTIVE);
    let with_bearer = format!("Bearer {}", app.signature(body.as_bytes()));
    assert_eq!(app.hook(&body, Some(&with_bearer)).await, 200);
    // signed, and not JSON at all: taken, because LiveKit would only send it again
    app.good_hook("{\"event\":").await;
    assert_eq!(story.epochs(&app).await[0].status, epoch::EpochStatus::Active);

    app.sim.unpublish_share(&story.share).expect("unpublished");
    app.wait_for_egress(&story.egress, "EGRESS_COMPLETE").await;
    app.good_hook(&story.tell(ENDED)).await;
    let epochs = story.epochs(&app).await;
    assert_eq!(epochs[0].status, epoch::EpochStatus::Ended);
    assert_eq!(epochs[0].outcome.as_deref(), Some("complete"));
    app.stop().await;
}

async fn what_is_not_livekits_leaves_no_trace(engine: Engine) {
    let app = quiet(engine).start("hooks-refused").await;
    let story = Story::begin(&app, "alice", "app-forged").await;
    app.sim.unpublish_share(&story.share).expect("unpublished");
    app.wait_for_egress(&story.egress, "EGRESS_COMPLETE").await;
    // true, and would change rows if it were taken
    let body = story.tell(ENDED);
    let before = dump(&app.deps.db, &[]).await;
    let calls = app.sim.calls().len();

    let (key, secret) = (app.sim.api_key().to_owned(), app.sim.api_secret().to_owned());
    let now = now_ms() / 1000;
    let sum = STANDARD.encode(Sha256::digest(&body));
    let other_sum = STANDARD.encode(Sha256::digest("something else"));
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut claims =
            json!({ "iss": key, "exp": now + 300, "nbf": now, "iat": now, "sha256": sum });
        change(&mut claims);
        signed(&secret, &claims)
    };
    let good = claims(&|_| {});
    let parts: Vec<&str> = good.split('.').collect();
    let unsigned =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let refused: Vec<(&str, Option<String>)> = vec![
        ("no header", None),
        ("an empty header", Some(String::new())),
        ("no token", Some("Bearer ".to_owned())),
        ("not a token", Some("hello".to_owned())),
        ("no signature", Some(format!("{unsigned}.{}.", parts[1]))),
        (
            "another's signature",
            Some(signed(
                "another secret that is long enough",
                &json!({
            "iss": key, "exp": now + 300, "nbf": now, "iat": now, "sha256": sum }),
            )),
        ),
        ("another key", Some(claims(&|claims| claims["iss"] = json!("otherkey")))),
        ("expired", Some(claims(&|claims| claims["exp"] = json!(now - 120)))),
        ("not yet valid", Some(claims(&|claims| claims["nbf"] = json!(now + 3600)))),
        (
            "valid for ever",
            Some(claims(&|claims| drop(claims.as_object_mut().expect("claims").remove("exp")))),
        ),
        (
            "no checksum",
            Some(claims(&|claims| drop(claims.as_object_mut().expect("claims").remove("sha256")))),
        ),
        ("an empty checksum", Some(claims(&|claims| claims["sha256"] = json!("")))),
        ("not a checksum", Some(claims(&|claims| claims["sha256"] = json!("%%%")))),
        (
            "the checksum of another body",
            Some(claims(&|claims| claims["sha256"] = json!(other_sum))),
        ),
        ("a user's token", Some(app.token("alice"))),
        ("an admin's token", Some(format!("Bearer {}", app.admin()))),
        // what we send ourselves, if the secret is the same
        (
            "a token for calls",
            Some(claims(&|claims| {
                drop(claims.as_object_mut().expect("claims").remove("sha256"));
                claims["video"] = json!({ "roomRecord": true });
            })),
        ),
    ];
    for (what, authorization) in &refused {
        let status = app.hook(&body, authorization.as_deref()).await;
        assert_eq!(status, 401, "{what}");
    }
    for altered in [
        body.replace("EGRESS_COMPLETE", "EGRESS_FAILED"),
        body.replace(":{", ": {"),
        format!("{body} "),
        String::new(),
    ] {
        assert_ne!(altered, body);
        assert_eq!(app.hook(&altered, Some(&good)).await, 401, "{altered}");
    }
    app.until("nothing is under way", async || app.deps.tasks.is_empty()).await;
    assert_eq!(dump(&app.deps.db, &[]).await, before, "a refused webhook left a trace");
    assert_eq!(app.sim.calls().len(), calls, "a refused webhook made us call LiveKit");
    println!("{} refusals, {} tables unchanged", refused.len() + 4, before.len());

    assert_eq!(app.hook(&body, Some(&good)).await, 200);
    app.until("it was applied", async || app.deps.tasks.is_empty()).await;
    assert_ne!(dump(&app.deps.db, &[]).await, before, "the same body, well signed, changes rows");
    app.stop().await;
}

/// All orders of `0..4`.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| *c != a && *c != b) {
                orders.push([a, b, c, 6 - a - b - c]);
            }
        }
    }
    orders
}

async fn every_order_of_events_ends_in_the_same_state(engine: Engine) {
    let app = quiet(engine).start("hooks-orders").await;
    let orders = orders();
    assert_eq!(orders.len(), 24);
    let mut stories = Vec::new();
    for index in 0..orders.len() {
        stories.push(Story::begin(&app, &format!("user{index}"), &format!("app-{index}")).await);
    }
    for story in &stories {
        app.sim.unpublish_share(&story.share).expect("unpublished");
    }
    for story in &stories {
        app.wait_for_egress(&story.egress, "EGRESS_COMPLETE").await;
    }
    for (story, order) in stories.iter().zip(&orders) {
        let told = [STARTED, ACTIVE, ENDED, UNPUBLISHED].map(|recorded| story.tell(recorded));
        // each doubled at once, and all of it once more: retries carry the same id
        for round in 0..2 {
            for event in order {
                app.good_hook(&told[*event]).await;
                if round == 0 {
                    app.good_hook(&told[*event]).await;
                }
            }
        }
    }
    flow::supervise::pass(&app.deps).await.expect("a pass");
    let first = stories[0].state(&app).await;
    assert_eq!(first["epochs"][0]["status"], "Ended", "{first:#}");
    assert_eq!(
        (&first["holdsPlace"], &first["shareLost"]),
        (&json!(true), &json!(true)),
        "{first:#}"
    );
    for (story, order) in stories.iter().zip(&orders) {
        assert_eq!(
            story.state(&app).await,
            first,
            "{order:?} (0 started, 1 active, 2 ended, 3 unpublished)"
        );
    }

    // the share does not come back
    app.clock.advance_micros(700_000_000);
    for _ in 0..3 {
        flow::supervise::pass(&app.deps).await.expect("a pass");
    }
    let last = stories[0].state(&app).await;
    assert_eq!(
        (&last["status"], &last["endReason"]),
        (&json!("stopped"), &json!("share_ended")),
        "{last:#}"
    );
    for (story, order) in stories.iter().zip(&orders) {
        assert_eq!(story.state(&app).await, last, "{order:?} {}", story.user);
    }
    let (_, config) = app.get_as(&app.admin(), "/admin/community/app/config").await;
    assert_eq!(config["activeSessions"], 0, "{config:#}");
    app.stop().await;
}

async fn an_end_that_livekit_contradicts_is_not_believed(engine: Engine) {
    let app = quiet(engine).start("hooks-contradicted").await;
    let story = Story::begin(&app, "alice", "app-false").await;
    app.good_hook(&story.tell(ACTIVE)).await;
    for word in ["EGRESS_COMPLETE", "EGRESS_FAILED", "EGRESS_ABORTED", "EGRESS_LIMIT_REACHED"] {
        app.good_hook(&story.tell(ENDED).replace("EGRESS_COMPLETE", word)).await;
        flow::supervise::pass(&app.deps).await.expect("a pass");
        assert_eq!(story.epochs(&app).await[0].status, epoch::EpochStatus::Active, "{word}");
        let row = story.row(&app).await;
        assert!(row.holds_place && row.share_lost_at.is_none(), "{word}: {row:?}");
    }
    // a share said to be gone that is there; a room said to be closed that is open
    app.good_hook(&story.tell(UNPUBLISHED)).await;
    let closed = r#"{"event":"room_finished","room":{"sid":"RM_1","name":"app-false"},"id":"EV_ID","createdAt":"1"}"#;
    app.good_hook(&with_id(closed)).await;
    flow::supervise::pass(&app.deps).await.expect("a pass");
    let row = story.row(&app).await;
    assert!(row.holds_place && row.share_lost_at.is_none(), "{row:?}");
    assert_eq!((app.calls("StartTrackCompositeEgress"), app.calls("StopEgress")), (1, 0));

    // LiveKit does not answer: the signed word counts; the egress is not forgotten for that
    let silent = CallAction::Error { code: "unavailable".to_owned(), msg: "no".to_owned() };
    app.sim.add_call_fault(CallFault {
        method: "ListEgress".to_owned(),
        action: silent,
        times: None,
        for_ms: None,
    });
    app.good_hook(&story.tell(ENDED)).await;
    assert_eq!(story.epochs(&app).await[0].status, epoch::EpochStatus::Ended);
    app.sim.clear_call_faults();
    let counts = flow::reconcile::run(&app.deps).await.expect("a pass");
    assert_eq!(counts.orphans_stopped, 1, "{counts:?}");
    app.wait_for_egress(&story.egress, "EGRESS_COMPLETE").await;
    app.stop().await;
}

async fn what_is_not_ours_is_nothing_to_us(engine: Engine) {
    let app = quiet(engine).start("hooks-foreign").await;
    let story = Story::begin(&app, "alice", "app-foreign").await;
    app.good_hook(&story.tell(ACTIVE)).await;
    // another app's recording of the same share, in the same room
    let client =
        EgressClient::with_api_key(&app.sim.url(), app.sim.api_key(), app.sim.api_secret());
    let output = proto::SegmentedFileOutput {
        filename_prefix: format!("{}/other-app/seg", app.dir.display()),
        playlist_name: "index.m3u8".to_owned(),
        ..Default::default()
    };
    let tracks =
        TrackCompositeOptions { video_track_id: story.share.video.clone(), ..Default::default() };
    let foreign = client
        .start_track_composite_egress("app-foreign", vec![EgressOutput::Segments(output)], tracks)
        .await
        .expect("accepted");
    app.wait_for_egress(&foreign.egress_id, "EGRESS_ACTIVE").await;

    let before = dump(&app.deps.db, &["webhook_seen"]).await;
    let buffer = app.dir.join("buffer");
    let instance = harness::INSTANCE;
    let directories = [
        format!("{}/other-app", app.dir.display()),
        format!("{}/deadbeef/r/u/s/1", buffer.display()),
        format!("{}/{instance}x/r/u/s/1", buffer.display()),
        format!("{}/{instance}/../deadbeef/r/u/s/1", buffer.display()),
        format!("{}/{instance}", buffer.display()),
        "/".to_owned(),
        String::new(),
    ];
    for directory in &directories {
        for recorded in [STARTED, ACTIVE, ENDING, ENDED] {
            let body = story.tell(recorded).replace(&story.directory, directory);
            app.good_hook(&body.replace(&story.egress, &foreign.egress_id)).await;
            // an automatic egress that could not be launched has no id
            app.good_hook(&body.replace(&story.egress, "")).await;
        }
    }
    for nothing in [
        r#"{"event":"egress_ended","id":"EV_ID"}"#,
        r#"{"event":"egress_ended","egressInfo":{},"id":"EV_ID"}"#,
        r#"{"event":"egress_ended","egressInfo":{"status":"EGRESS_FAILED"},"id":"EV_ID"}"#,
        r#"{"event":"ingress_started","id":"EV_ID"}"#,
        r#"{"event":"","id":"EV_ID"}"#,
        r#"{}"#,
        r#"[]"#,
    ] {
        app.good_hook(&with_id(nothing)).await;
    }
    assert_eq!(dump(&app.deps.db, &["webhook_seen"]).await, before);
    let counts = flow::reconcile::run(&app.deps).await.expect("a pass");
    assert_eq!((counts.egresses_seen, counts.orphans_stopped), (2, 0), "{counts:?}");
    assert_eq!(app.calls("StopEgress"), 0);
    for egress in app.sim.egresses() {
        assert_eq!(egress.status, "EGRESS_ACTIVE", "{egress:?}");
    }
    app.stop().await;
}

async fn a_published_share_starts_a_buffer_where_that_is_wanted(engine: Engine) {
    let setup = Setup::on(engine).change(|config| {
        config.buffer.no_segment = Duration::from_secs(3600);
        // many sessions at once are refused where the disk could not hold what they may grow to
        config.buffer.length = Duration::from_secs(60);
        config.buffer.cleanup = Duration::from_secs(120);
        config.limits.community_max_concurrent = 100;
    });
    let app = setup.start("hooks-auto").await;
    let (status, config) = app
        .patch_as(&app.admin(), "/admin/community/app/config", json!({ "autoStart": true }))
        .await;
    assert_eq!((status, &config["autoStart"]), (200, &json!(true)), "{config:#}");
    // rights of the database; dave has them in a community that does not want this, carol nowhere
    for (user, community) in [("alice", "app"), ("erin", "app"), ("dave", "red"), ("fred", "app")] {
        let (community, user) = (CommunityId::new(community), UserId::new(user));
        let now = app.deps.clock.now();
        member::grant(app.deps.db.conn(), &community, &user, "moderator", now)
            .await
            .expect("granted");
    }
    // fred has the rights, and does not want it
    let wish = async |wanted: bool| {
        let body = json!({ "autoStart": wanted });
        app.patch_as(&app.token("fred"), "/me/preferences", body).await
    };
    assert_eq!(wish(false).await, (200, json!({ "autoStart": false })));
    let unwanted = app.sim.publish_share("app-auto", "fred:tab", SILENT).expect("a share");
    app.sim.publish_share("app-auto", "carol:tab", SILENT).expect("a share");
    app.sim.publish_share("red-auto", "dave:tab", SILENT).expect("a share");
    app.sim.publish_share("app-auto", "dave:tab", SILENT).expect("a share");
    let share = app.sim.publish_share("app-auto", "alice:tab", SILENT).expect("a share");
    // sound comes a moment after the picture: still one egress, with sound
    app.until("the picture was announced", async || announced(&app) >= 5).await;
    let sound = app.sim.publish_audio("app-auto", "alice:tab").expect("sound");
    let first = newest(&app, "alice").await;
    app.wait_for_recording(&first).await;
    let epochs = epoch::list(app.deps.db.conn(), &first.id).await.expect("epochs");
    assert_eq!(epochs.len(), 1, "{epochs:?}");
    assert_eq!(epochs[0].audio_track_id.as_ref().map(|sid| sid.as_str()), Some(sound.as_str()));
    assert_eq!((first.started_by.as_str(), first.auto_started), ("alice", true));
    assert_eq!(first.community_id, Some(CommunityId::new("app")));
    app.until("every announcement was dealt with", async || app.deps.tasks.is_empty()).await;
    for user in ["carol", "dave", "fred"] {
        let row = session::find_newest_of_user(app.deps.db.conn(), &UserId::new(user)).await;
        assert_eq!(row.expect("rows"), None, "{user}");
    }
    assert_eq!(app.calls("StartTrackCompositeEgress"), 1);

    // what fred wants counts for what he publishes from then on
    assert_eq!(wish(true).await, (200, json!({ "autoStart": true })));
    app.sim.unpublish(&unwanted.video).expect("unpublished");
    app.sim.publish_share("app-auto", "fred:tab", SILENT).expect("a share");
    assert!(newest(&app, "fred").await.auto_started);

    // sound that comes when the recording runs already: a second egress with it, then the first one stops
    let small = Share { width: 320, height: 180, audio: false, ..Share::default() };
    app.sim.publish_share("app-late", "erin", small).expect("a share");
    let late = newest(&app, "erin").await;
    app.wait_for_buffer("erin", late.id.as_str(), 2.0).await;
    let sound = app.sim.publish_audio("app-late", "erin").expect("sound");
    app.until("the recording has sound", async || {
        let epochs = epoch::list(app.deps.db.conn(), &late.id).await.expect("epochs");
        epochs.len() == 2 && epochs[0].status == epoch::EpochStatus::Ended
    })
    .await;
    let epochs = epoch::list(app.deps.db.conn(), &late.id).await.expect("epochs");
    assert_eq!(epochs[0].audio_track_id, None);
    assert_eq!(epochs[1].audio_track_id.as_ref().map(|sid| sid.as_str()), Some(sound.as_str()));
    assert!(epochs[1].answered_at < epochs[0].stop_sent_at, "{epochs:#?}");
    app.post("erin", "/stop", json!({})).await;

    // alice does not want it: not again for this share, however often it is announced
    let (status, _) = app.post("alice", "/stop", json!({})).await;
    assert_eq!(status, 200);
    app.wait_for_status("alice", &first, "stopped").await;
    let story = Story {
        user: "alice".to_owned(),
        session: first.id.clone(),
        egress: String::new(),
        directory: String::new(),
        share: share.clone(),
    };
    for _ in 0..2 {
        app.good_hook(&story.tell(PUBLISHED)).await;
    }
    assert_eq!(
        newest(&app, "alice").await.id,
        first.id,
        "it started again against the user's will"
    );
    // the same announcement for somebody who only left: that starts
    app.sim.unpublish(&share.video).expect("unpublished");
    app.sim.publish_share("app-auto", "alice:tab", SILENT).expect("a share");
    app.until("the next share starts a buffer again", async || {
        newest(&app, "alice").await.id != first.id
    })
    .await;
    let second = newest(&app, "alice").await;
    app.wait_for_recording(&second).await;
    assert!(second.auto_started);
    app.stop().await;
}

/// Announcements of pictures that were delivered.
fn announced(app: &App) -> usize {
    app.sim.deliveries().iter().filter(|one| one.event == "track_published").count()
}

/// The user's newest session, as soon as there is one.
async fn newest(app: &App, user: &str) -> session::Model {
    let find = async || {
        let found = session::find_newest_of_user(app.deps.db.conn(), &UserId::new(user)).await;
        found.expect("rows")
    };
    app.until("a session", async || find().await.is_some()).await;
    find().await.expect("it was there")
}

impl App {
    /// Until LiveKit's word that it records has come.
    async fn wait_for_recording(&self, session: &session::Model) {
        self.until("it is recorded", async || {
            let epochs = epoch::list(self.deps.db.conn(), &session.id).await.expect("epochs");
            epochs.iter().any(|epoch| epoch.status == epoch::EpochStatus::Active)
        })
        .await;
    }

    async fn wait_for_status(&self, user: &str, session: &session::Model, status: &str) {
        let wanted = SessionStatus::from_name(status).expect("a status");
        self.until(status, async || {
            let row = session::load(self.deps.db.conn(), &session.id).await.expect("the session");
            assert_eq!(row.user_id.as_str(), user);
            row.status == wanted
        })
        .await;
    }
}
