//! The world that `matrix.md` describes, made through the service itself.

use std::collections::BTreeMap;

use livekit_replay::{
    access::token::{self, Claims},
    config::Config,
    domain::{
        id::{CommunityId, UserId},
        names::{CommunityRule, CommunitySource},
    },
    simulator::{Media, Share},
};
use serde_json::{Value, json};

use crate::{
    ground,
    harness::{App, Engine, Loops, Setup},
    table::CALLERS,
};

pub struct World {
    pub app: App,
    /// By caller; `nobody` has none.
    pub tokens: BTreeMap<&'static str, String>,
    /// What stands in braces in the table.
    names: BTreeMap<&'static str, String>,
}

const SMALL: Share = Share { width: 320, height: 180, audio: false, media: Media::Live };

fn settings(config: &mut Config) {
    let sources = vec![CommunitySource::Pattern];
    config.rooms = CommunityRule::new(Some("^(?<community>[a-z]+):"), sources).expect("a rule");
    config.buffer.no_segment = std::time::Duration::from_secs(3600);
}

impl World {
    pub async fn build(engine: Engine) -> World {
        World::build_with(engine, |_| {}).await
    }

    /// With settings of the test's own.
    pub async fn build_with(
        engine: Engine,
        change: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> World {
        let setup = Setup::on(engine).loops(Loops::None).without_webhooks().change(move |config| {
            settings(config);
            change(config);
        });
        let app = setup.start("access").await;
        let mut world = World { app, tokens: BTreeMap::new(), names: BTreeMap::new() };
        world.admit().await;
        world.share_screens();
        // a replica that does the work, gone before the first question
        let worker = world.app.replica().await;
        worker.run_loops();
        worker.run_jobs();
        world.record().await;
        world.make_clips().await;
        worker.stop().await;
        world.make_unfinished().await;
        world.remember_links().await;
        world.remove("removed").await;
        world
    }

    /// Roles in rows for most, in the token for some.
    async fn admit(&mut self) {
        let token = |user: &str, red: &[&str], roles: &[&str]| {
            let communities = if red.is_empty() { json!({}) } else { json!({ "red": red }) };
            self.app.token_of(user, &communities, roles)
        };
        for user in ["other", "member", "moderator", "admin", "foreign"] {
            self.tokens.insert(user, token(user, &[], &[]));
        }
        self.tokens.insert("root", token("root", &[], &["instance_admin"]));
        self.tokens.insert("removed", token("removed", &["moderator"], &[]));
        self.tokens.insert("owner", token("owner", &["moderator"], &[]));
        self.tokens.insert("expired", self.expired());
        for (community, user, role) in [
            ("red", "member", "member"),
            ("red", "moderator", "moderator"),
            ("red", "admin", "admin"),
            ("blue", "foreign", "admin"),
            ("red", "removed", "moderator"),
        ] {
            let path = format!("/admin/community/{community}/members/{user}/roles/{role}");
            self.asked("root", "PUT", &path, None, 204).await;
        }
        let rights = json!({ "permissions": ["CAPTURE_REPLAY"] });
        self.asked("root", "PUT", "/admin/community/red/roles/own", Some(rights), 200).await;
    }

    fn expired(&self) -> String {
        let communities = BTreeMap::from([(CommunityId::new("red"), vec!["moderator".to_owned()])]);
        let claims = Claims {
            user_id: &UserId::new("owner"),
            name: None,
            communities: &communities,
            roles: &[],
            lifetime: std::time::Duration::from_secs(60),
        };
        let long_ago = self.app.deps.clock.now().plus_seconds(-86_400);
        token::mint(&self.app.deps.config.auth, &claims, long_ago).expect("a token")
    }

    fn share_screens(&mut self) {
        let publish = |room: &str, user: &str| {
            self.app.sim.publish_share(room, user, SMALL).expect("a share").video
        };
        publish("red:room", "owner");
        for user in CALLERS.iter().skip(2) {
            publish("red:stage", user);
            publish("lobby", user);
        }
        let track = publish("red:stage", "sharer");
        self.names.insert("track", track);
    }

    async fn record(&mut self) {
        for (name, user, room) in
            [("session", "owner", "red:room"), ("theirs", "removed", "red:stage")]
        {
            let body = json!({ "roomName": room });
            let session = self.asked(user, "POST", "/start", Some(body), 201).await;
            self.names.insert(name, session["id"].as_str().expect("an id").to_owned());
        }
        for (name, user) in [("session", "owner"), ("theirs", "removed")] {
            let path = format!("/sessions/{}", self.names[name]);
            self.app
                .until("six seconds are kept", async || {
                    let (_, shown) = self.app.get_as(&self.tokens[user], &path).await;
                    shown["buffer"]["durationSeconds"].as_f64().is_some_and(|held| held >= 6.0)
                })
                .await;
        }
    }

    async fn make_clips(&mut self) {
        for (name, user, session, visibility) in [
            ("private", "owner", "session", "private"),
            ("community", "owner", "session", "community"),
            ("public", "owner", "session", "public"),
            ("unlisted", "owner", "session", "unlisted"),
            ("gone", "removed", "theirs", "private"),
        ] {
            let id = self.capture(user, session, visibility).await;
            self.names.insert(name, id);
        }
        for (name, user) in [
            ("private", "owner"),
            ("community", "owner"),
            ("public", "owner"),
            ("unlisted", "owner"),
            ("gone", "removed"),
        ] {
            let path = format!("/clips/{}", self.names[name]);
            self.app
                .until("the clip is ready", async || {
                    let (_, clip) = self.app.get_as(&self.tokens[user], &path).await;
                    assert_ne!(clip["status"], "failed", "{clip:#}");
                    clip["status"] == "ready"
                })
                .await;
        }
    }

    async fn capture(&self, user: &str, session: &str, visibility: &str) -> String {
        let body = json!({
            "sessionId": self.names[session], "startSeconds": 1, "endSeconds": 4,
            "precision": "keyframe", "visibility": visibility,
        });
        let clip = self.asked(user, "POST", "/capture", Some(body), 202).await;
        clip["clipId"].as_str().expect("an id").to_owned()
    }

    /// With nobody there who works: one clip stays in the making, one is made to have failed.
    async fn make_unfinished(&mut self) {
        for name in ["processing", "failed"] {
            let id = self.capture("owner", "session", "private").await;
            self.names.insert(name, id);
        }
        let failed = self.names["failed"].clone();
        let clip = "UPDATE clip SET status = 'failed', error_code = 'ffmpeg_failed', reserved_bytes = 0 WHERE id = ?";
        ground::execute(&self.app, clip, &[&failed]).await;
        let job = "UPDATE job SET state = 'failed' WHERE clip_id = ?";
        ground::execute(&self.app, job, &[&failed]).await;
        let jobs = self.asked("root", "GET", "/admin/jobs?state=failed", None, 200).await;
        let job = jobs["jobs"][0]["id"].as_str().expect("a job").to_owned();
        self.names.insert("job", job);
    }

    async fn remember_links(&mut self) {
        let path = format!("/sessions/{}", self.names["session"]);
        let session = self.asked("owner", "GET", &path, None, 200).await;
        let (from, to) = (&session["buffer"]["startsAt"], &session["buffer"]["endsAt"]);
        let window = |at: &Value| at.as_str().expect("a moment").to_owned();
        self.names.insert("window", format!("from={}&to={}", window(from), window(to)));
        let playlist = self.text(&format!("{path}/preview.m3u8")).await;
        let line = playlist.lines().find(|line| !line.starts_with('#')).expect("a segment");
        let (name, _) = line.split_once(".ts").expect("a segment's name");
        let name = name.rsplit('/').next().expect("its last part");
        self.names.insert("segment", name.to_owned());
        let strip = format!("{path}/filmstrip?{}&count=2", self.names["window"]);
        let strip = self.text(&strip).await;
        let (_, query) = strip.split_once("filmstrip.jpg?").expect("a signed image");
        let query = query.split('#').next().expect("the query").to_owned();
        self.names.insert("strip", query);
        let clip = format!("/clips/{}", self.names["private"]);
        let body = json!({ "shareOption": "link" });
        let share = self.asked("owner", "POST", &format!("{clip}/share"), Some(body), 200).await;
        self.names.insert("share", share["shareId"].as_str().expect("an id").to_owned());
        let url = share["url"].as_str().expect("an address");
        let (_, secret) = url.rsplit_once('/').expect("a secret at the end");
        self.names.insert("link", secret.to_owned());
        let clip = self.asked("owner", "GET", &clip, None, 200).await;
        for (name, address) in
            [("signed preview", &session["previewUrl"]), ("signed file", &clip["downloadUrl"])]
        {
            let address = address.as_str().expect("an address");
            let (_, query) = address.split_once('?').expect("a signed query");
            self.names.insert(name, query.to_owned());
        }
    }

    /// What the owner gets, as text.
    async fn text(&self, path: &str) -> String {
        let request = self.app.http.get(format!("{}{path}", self.app.base));
        let answer = request.bearer_auth(&self.tokens["owner"]).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        answer.text().await.expect("text")
    }

    async fn remove(&self, user: &str) {
        let path = format!("/admin/community/red/members/{user}");
        self.asked("root", "DELETE", &path, None, 204).await;
    }

    /// Asks as somebody, and answers the body of the answer that must come.
    async fn asked(
        &self,
        user: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> Value {
        let method = method.parse().expect("a method");
        let mut request = self.app.http.request(method, format!("{}{path}", self.app.base));
        request = request.bearer_auth(&self.tokens[user]).header("Prefer", "respond-async");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(
            answer.status().as_u16(),
            status,
            "{path}: {}",
            answer.text().await.expect("text")
        );
        answer.json().await.unwrap_or(Value::Null)
    }

    /// The text of a row with this world's names in it.
    pub fn fill(&self, path: &str, text: &str) -> String {
        let signed = if path.starts_with("/sessions/") { "signed preview" } else { "signed file" };
        let mut text = text.replace("{signed}", &self.names[signed]);
        text = text.replace("{spoilt}", &spoilt(&self.names[signed]));
        for (name, value) in &self.names {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }
}

/// A signed query with one letter of its signature changed.
fn spoilt(query: &str) -> String {
    let (before, signature) = query.split_once("&s=").expect("a signature");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{before}&s={first}{}", &signature[1..])
}
