//! A clip shared: by a link that needs no login, and by the app's own messages.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{App, Engine, dump},
    receiver::{Arrived, Receiver, Says, secret},
    world::World,
};

/// One world for all of it: making one takes long.
pub async fn clips_are_shared(engine: Engine) {
    let receiver = Receiver::start().await;
    let url = receiver.url.clone();
    let world = World::build_with(engine, move |config| {
        config.share =
            Some(livekit_replay::config::Share { url: url.clone(), secret: secret().into() });
    })
    .await;
    let story = Story { world: &world, receiver: &receiver };
    // first, while the recording is young
    story.a_capture_is_shared_when_it_is_ready().await;
    story.a_link_opens_the_clip_and_nothing_else().await;
    story.a_link_ends_with_its_time().await;
    story.a_link_ends_when_it_is_taken_back().await;
    story.narrowing_ends_every_link().await;
    story.all_links_end_at_once().await;
    story.no_secret_is_kept().await;
    story.a_key_shares_once().await;
    story.a_delivered_share_outlasts_a_database_that_is_held().await;
    story.the_app_gets_one_signed_request().await;
    story.what_the_app_does_not_take_is_void().await;
    story.orders_that_make_no_sense_are_refused().await;
    story.a_link_ends_with_the_clip().await;
    world.app.stop().await;
}

struct Story<'a> {
    world: &'a World,
    receiver: &'a Receiver,
}

impl Story<'_> {
    fn app(&self) -> &App {
        &self.world.app
    }

    /// `/clips/…` of a clip of the world.
    fn clip(&self, name: &str) -> String {
        let path = format!("/clips/{{{name}}}");
        self.world.fill(&path, &path)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        self.ask_with(method, path, body, None).await
    }

    async fn ask_with(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        key: Option<&str>,
    ) -> (u16, Value) {
        let app = self.app();
        let mut request = app.http.request(method, format!("{}{path}", app.base));
        request = request.bearer_auth(&self.world.tokens["owner"]);
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn share(&self, name: &str, body: Value) -> Value {
        let path = format!("{}/share", self.clip(name));
        let (status, shared) = self.ask(Method::POST, &path, Some(body)).await;
        assert_eq!(status, 200, "{shared:#}");
        shared
    }

    /// A link to a clip, and its path below the server's root.
    async fn link(&self, name: &str) -> String {
        let shared = self.share(name, json!({ "shareOption": "link" })).await;
        shared["url"].as_str().expect("an address").to_owned()
    }

    /// Opens a link as anybody.
    async fn open(&self, link: &str) -> reqwest::Response {
        let root = self.app().base.trim_end_matches("/livekit-replay");
        self.app().http.get(format!("{root}{link}")).send().await.expect("an answer")
    }

    async fn status(&self, link: &str) -> u16 {
        self.open(link).await.status().as_u16()
    }

    /// How many shares are listed of a clip.
    async fn listed(&self, name: &str) -> Vec<Value> {
        let path = format!("{}/shares", self.clip(name));
        let (status, list) = self.ask(Method::GET, &path, None).await;
        assert_eq!(status, 200, "{list:#}");
        assert_eq!(list["total"], list["shares"].as_array().expect("a list").len());
        list["shares"].as_array().expect("a list").clone()
    }

    /// Asks for a capture with a share, and waits for both.
    async fn capture(&self, share: Value) -> Value {
        let (status, clip) = self.capture_as(share, "wait=60", None).await;
        assert_eq!((status, &clip["status"]), (201, &json!("ready")), "{clip:#}");
        clip
    }

    async fn capture_as(&self, mut share: Value, prefer: &str, key: Option<&str>) -> (u16, Value) {
        share["sessionId"] = json!(self.world.fill("", "{session}"));
        share["startSeconds"] = json!(1);
        share["endSeconds"] = json!(3);
        let app = self.app();
        let request = app.http.post(format!("{}/capture", app.base)).header("Prefer", prefer);
        let mut request = request.bearer_auth(&self.world.tokens["owner"]).json(&share);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn shares_of(&self, clip: &Value) -> Vec<Value> {
        let path = format!("/clips/{}/shares", clip["clipId"].as_str().expect("an id"));
        let (_, list) = self.ask(Method::GET, &path, None).await;
        list["shares"].as_array().expect("a list").clone()
    }

    async fn shown(&self, clip: &Value) -> Value {
        let path = format!("/clips/{}", clip["clipId"].as_str().expect("an id"));
        self.ask(Method::GET, &path, None).await.1
    }

    async fn a_capture_is_shared_when_it_is_ready(&self) {
        let dm = || json!({ "shareOption": "dm", "targetUserId": "other" });
        // asked for while nobody works; one delivery is then taken up by somebody who dies, one by nobody
        let (status, interrupted) = self.capture_as(dm(), "respond-async", None).await;
        assert_eq!(status, 202, "{interrupted:#}");
        let (_, begun_late) = self.capture_as(dm(), "respond-async", None).await;
        let (_, taken_back) = self.capture_as(dm(), "respond-async", None).await;
        for clip in [&interrupted, &begun_late, &taken_back] {
            let id = clip["clipId"].as_str().expect("an id");
            let now = self.app().deps.clock.now().as_micros();
            let claim = format!("UPDATE share_wish SET claimed_at = {now} WHERE clip_id = ?");
            crate::ground::execute(self.app(), &claim, &[id]).await;
        }
        let worker = self.app().replica().await;
        worker.run_jobs();

        let clip = self.capture(dm()).await;
        assert_eq!(clip["messageId"], "m-1", "{clip:#}");
        let arrived = self.receiver.take();
        let [delivery] = arrived.as_slice() else { panic!("{arrived:?}") };
        assert!(delivery.is_signed());
        assert_eq!(delivery.json()["data"]["clip"]["clipId"], clip["clipId"]);
        assert_eq!(self.status(&delivery.link()).await, 200);
        assert_eq!(self.shares_of(&clip).await[0]["messageId"], "m-1");

        self.receiver.next(Says::Status(403));
        let clip = self.capture(dm()).await;
        assert_eq!(clip["shareError"], "share_refused", "{clip:#}");
        let arrived = self.receiver.take();
        assert_eq!(self.status(&arrived[0].link()).await, 404);
        assert_eq!(self.shares_of(&clip).await, Vec::<Value>::new());

        let clip = self.capture(json!({ "shareOption": "link" })).await;
        assert_eq!(self.status(clip["shareUrl"].as_str().expect("an address")).await, 200);
        assert!(self.shown(&clip).await.get("shareUrl").is_none());

        // whose answer got lost asks again, and is told the link that there is
        let link = || json!({ "shareOption": "link" });
        let (_, first) = self.capture_as(link(), "respond-async", Some("lost")).await;
        let (_, again) = self.capture_as(link(), "wait=60", Some("lost")).await;
        assert_eq!(again["status"], "ready", "{again:#}");
        assert_eq!(again["clipId"], first["clipId"]);
        assert_eq!(again["shareUrl"], first["shareUrl"]);
        assert_eq!(self.status(again["shareUrl"].as_str().expect("an address")).await, 200);
        assert_eq!(self.shares_of(&again).await.len(), 1, "one link");
        let path = format!("/clips/{}/links", first["clipId"].as_str().expect("an id"));
        assert_eq!(self.ask(Method::DELETE, &path, None).await.0, 200);
        let (_, void) = self.capture_as(link(), "wait=60", Some("lost")).await;
        assert_eq!((&void["clipId"], &void["shareUrl"]), (&first["clipId"], &Value::Null));

        // what somebody else took up is his, until it is clear that he is gone
        for clip in [&interrupted, &begun_late, &taken_back] {
            self.app()
                .until("it is ready", async || self.shown(clip).await["status"] == "ready")
                .await;
        }
        let free = "UPDATE share_wish SET claimed_at = NULL WHERE clip_id = ?";
        let id = begun_late["clipId"].as_str().expect("an id");
        crate::ground::execute(self.app(), free, &[id]).await;
        let deps = &self.app().deps;
        livekit_replay::flow::shares::catch_up(deps).await.expect("a pass");
        assert_eq!(self.shown(&begun_late).await["messageId"], "m-1");
        assert!(self.shown(&interrupted).await.get("shareError").is_none());
        assert_eq!((self.receiver.take().len(), self.told_of(&begun_late).await), (1, 1));
        self.what_is_taken_back_meanwhile_is_not_told(&taken_back).await;
        self.app().clock.advance_micros(61_000_000);
        livekit_replay::flow::shares::catch_up(deps).await.expect("a pass");
        assert_eq!(self.shown(&interrupted).await["shareError"], "share_failed");
        assert_eq!(self.receiver.take().len(), 0);
        assert!(dump(&deps.db, &[]).await["share_wish"].is_empty());

        for (share, field) in [
            (json!({ "targetUserId": "other" }), "targetUserId"),
            (json!({ "shareOption": "dm" }), "targetUserId"),
            (json!({ "shareOption": "link", "targetChannelId": "general" }), "targetChannelId"),
        ] {
            let (status, refused) = self.capture_as(share, "respond-async", None).await;
            assert_eq!((status, &refused["errors"][0]["field"]), (422, &json!(field)));
        }
        worker.stop().await;
    }

    async fn a_link_opens_the_clip_and_nothing_else(&self) {
        let link = self.link("unlisted").await;
        let (_, secret) = link.rsplit_once("/livekit-replay/s/").expect("a share's address");
        assert_eq!(secret.len(), 22, "128 bits in base64");
        let whole = self.open(&link).await;
        assert_eq!(whole.status(), 200);
        assert_eq!(whole.headers()["content-type"], "video/mp4");
        assert_eq!(whole.headers()["referrer-policy"], "no-referrer");
        let tag = whole.headers()["etag"].clone();
        let whole = whole.bytes().await.expect("bytes");
        let (_, clip) = self.ask(Method::GET, &self.clip("unlisted"), None).await;
        assert_eq!(whole.len() as u64, clip["sizeBytes"].as_u64().expect("bytes"));
        let root = self.app().base.trim_end_matches("/livekit-replay");
        let request = || self.app().http.get(format!("{root}{link}"));
        let part = request().header("range", "bytes=4-7").send().await.expect("an answer");
        assert_eq!(part.status(), 206);
        assert_eq!(&part.bytes().await.expect("bytes")[..], b"ftyp");
        let same = request().header("if-none-match", tag).send().await.expect("an answer");
        assert_eq!(same.status(), 304);
        let beyond = request().header("range", "bytes=999999999-").send().await;
        assert_eq!(beyond.expect("an answer").status(), 416);
        // the link is a right to the video alone
        let other = self.clip("unlisted");
        for path in [format!("/livekit-replay{other}"), format!("/livekit-replay{other}/file")] {
            assert_eq!(self.status(&path).await, 401);
        }
        for odd in ["x", "", "%2e%2e", &format!("{secret}A"), &secret[..21], &secret.to_lowercase()]
        {
            if odd != secret {
                let status = self.status(&format!("/livekit-replay/s/{odd}")).await;
                assert_eq!(status, 404, "{odd}");
            }
        }
    }

    async fn a_link_ends_with_its_time(&self) {
        let now = self.app().deps.clock.now();
        let body = json!({ "shareOption": "link", "expiresAt": now.plus_seconds(3600) });
        let shared = self.share("unlisted", body).await;
        let link = shared["url"].as_str().expect("an address");
        let lasting = self.link("unlisted").await;
        assert_eq!(self.status(link).await, 200);
        let before = self.listed("unlisted").await.len();
        self.app().clock.advance_micros(3_601_000_000);
        assert_eq!(self.status(link).await, 404);
        assert_eq!(self.status(&lasting).await, 200);
        assert_eq!(self.listed("unlisted").await.len(), before - 1);
    }

    async fn a_link_ends_when_it_is_taken_back(&self) {
        let (first, second) =
            (self.share("unlisted", json!({ "shareOption": "link" })).await, self.link("unlisted"));
        let second = second.await;
        let link = first["url"].as_str().expect("an address");
        let id = first["shareId"].as_str().expect("an id");
        let path = format!("{}/shares/{id}", self.clip("unlisted"));
        assert_eq!(self.ask(Method::DELETE, &path, None).await.0, 200);
        assert_eq!(self.status(link).await, 404);
        assert_eq!(self.status(&second).await, 200);
        let (status, again) = self.ask(Method::DELETE, &path, None).await;
        assert_eq!((status, &again["code"]), (404, &json!("not_found")));
    }

    async fn narrowing_ends_every_link(&self) {
        let link = self.link("public").await;
        let change = |to: &str| Some(json!({ "visibility": to }));
        let path = self.clip("public");
        // a wider look or another title takes nothing away
        assert_eq!(self.ask(Method::PATCH, &path, Some(json!({ "title": "T" }))).await.0, 200);
        assert_eq!(self.ask(Method::PATCH, &path, change("public")).await.0, 200);
        assert_eq!(self.status(&link).await, 200);
        assert_eq!(self.ask(Method::PATCH, &path, change("unlisted")).await.0, 200);
        assert_eq!(self.status(&link).await, 404);
        assert_eq!(self.listed("public").await, Vec::<Value>::new());
        let link = self.link("public").await;
        assert_eq!(self.ask(Method::PATCH, &path, change("public")).await.0, 200);
        assert_eq!(self.status(&link).await, 200);
    }

    async fn all_links_end_at_once(&self) {
        let links = [self.link("community").await, self.link("community").await];
        let path = self.clip("community");
        let (_, clip) = self.ask(Method::GET, &path, None).await;
        let signed = clip["downloadUrl"].as_str().expect("an address").to_owned();
        assert_eq!(self.status(&signed).await, 200);
        let (status, done) = self.ask(Method::DELETE, &format!("{path}/links"), None).await;
        assert_eq!((status, &done["revoked"]), (200, &json!(2)), "{done:#}");
        for link in &links {
            assert_eq!(self.status(link).await, 404);
        }
        assert_eq!(self.status(&signed).await, 401);
        let (_, clip) = self.ask(Method::GET, &path, None).await;
        assert_eq!(self.status(clip["downloadUrl"].as_str().expect("an address")).await, 200);
    }

    /// Neither as text nor as bytes, also not in the answer kept for a key's repeats.
    async fn no_secret_is_kept(&self) {
        let path = format!("{}/share", self.clip("private"));
        let body = json!({ "shareOption": "link" });
        let key = Some("a-key-of-my-own");
        let (_, shared) = self.ask_with(Method::POST, &path, Some(body), key).await;
        self.is_kept_nowhere(shared["url"].as_str().expect("an address"), &["a-key-of-my-own"])
            .await;
        let link = json!({ "shareOption": "link" });
        let (_, clip) = self.capture_as(link, "respond-async", Some("a-captures-key")).await;
        self.is_kept_nowhere(clip["shareUrl"].as_str().expect("an address"), &[]).await;
    }

    async fn is_kept_nowhere(&self, url: &str, more: &[&str]) {
        let (_, secret) = url.rsplit_once('/').expect("a secret at the end");
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let bytes = hex::encode(URL_SAFE_NO_PAD.decode(secret).expect("base64"));
        let own = secret.to_lowercase();
        for (table, rows) in dump(&self.app().deps.db, &[]).await {
            for row in rows {
                let row = row.to_lowercase();
                for text in [own.as_str(), bytes.as_str()].iter().chain(more) {
                    assert!(!row.contains(text), "{table} keeps {text}: {row}");
                }
            }
        }
    }

    async fn a_key_shares_once(&self) {
        let before = self.listed("private").await.len();
        let path = format!("{}/share", self.clip("private"));
        let body = || Some(json!({ "shareOption": "dm", "targetUserId": "other" }));
        let ask = || self.ask_with(Method::POST, &path, body(), Some("twice"));
        let answers = futures::future::join_all([ask(), ask(), ask()]).await;
        for answer in &answers {
            assert_eq!(answer, &answers[0]);
            assert_eq!(answer.0, 200, "{answer:?}");
        }
        assert_eq!(self.status(answers[0].1["url"].as_str().expect("an address")).await, 200);
        assert_eq!(self.receiver.take().len(), 1);
        assert_eq!(self.listed("private").await.len(), before + 1);
        let other = Some(json!({ "shareOption": "link" }));
        let (status, refused) = self.ask_with(Method::POST, &path, other, Some("twice")).await;
        assert_eq!((status, &refused["code"]), (422, &json!("idempotency_mismatch")));
        // a refusal is not kept: the key is free for another attempt
        self.receiver.next(Says::Status(500));
        let again = || self.ask_with(Method::POST, &path, body(), Some("tried"));
        assert_eq!(again().await.0, 502);
        assert_eq!(again().await.0, 200);
        assert_eq!(self.receiver.take().len(), 2);
    }

    /// How often it was told that this clip was shared.
    async fn told_of(&self, clip: &Value) -> usize {
        let id = clip["clipId"].as_str().expect("an id");
        let events = &dump(&self.app().deps.db, &[]).await["event"];
        events.iter().filter(|row| row.contains("clip_shared") && row.contains(id)).count()
    }

    async fn arrived(&self) {
        self.app().until("it arrived", async || self.receiver.count() == 1).await;
    }

    /// The links of a capture are taken back while the app has its message already.
    async fn what_is_taken_back_meanwhile_is_not_told(&self, clip: &Value) {
        let id = clip["clipId"].as_str().expect("an id");
        let go_on = self.receiver.hold();
        let taken_back = async {
            self.arrived().await;
            let path = format!("/clips/{id}/links");
            assert_eq!(self.ask(Method::DELETE, &path, None).await.0, 200);
            go_on.notify_one();
        };
        let free = "UPDATE share_wish SET claimed_at = NULL WHERE clip_id = ?";
        crate::ground::execute(self.app(), free, &[id]).await;
        let pass = livekit_replay::flow::shares::catch_up(&self.app().deps);
        let (done, ()) = tokio::join!(pass, taken_back);
        done.expect("a pass");
        assert_eq!(self.status(&self.receiver.take()[0].link()).await, 404);
        assert_eq!(self.shown(clip).await.get("messageId"), None);
        assert_eq!(self.shown(clip).await.get("shareError"), None);
        assert_eq!(self.told_of(clip).await, 0);
        assert_eq!(self.shares_of(clip).await, Vec::<Value>::new());
    }

    /// The app took it, and then nobody could write for longer than one try lasts.
    async fn a_delivered_share_outlasts_a_database_that_is_held(&self) {
        let clip = self.ask(Method::GET, &self.clip("private"), None).await.1;
        let told = self.told_of(&clip).await;
        let go_on = self.receiver.hold();
        let path = format!("{}/share", self.clip("private"));
        let body = json!({ "shareOption": "dm", "targetUserId": "other" });
        let asked = self.ask_with(Method::POST, &path, Some(body.clone()), Some("held"));
        let held = async {
            self.arrived().await;
            let lock = crate::ground::Lock::take(self.app()).await;
            go_on.notify_one();
            tokio::time::sleep(std::time::Duration::from_secs(12)).await;
            lock.release().await;
        };
        let ((status, shared), ()) = tokio::join!(asked, held);
        assert_eq!((status, &shared["messageId"]), (200, &json!("m-1")), "{shared:#}");
        let again = self.ask_with(Method::POST, &path, Some(body), Some("held")).await;
        assert_eq!(again, (status, shared.clone()));
        assert_eq!(self.receiver.take().len(), 1);
        assert_eq!(self.told_of(&clip).await, told + 1);
        let listed = self.listed("private").await;
        let row = listed.iter().find(|row| row["shareId"] == shared["shareId"]);
        assert_eq!(row.expect("it is listed")["messageId"], "m-1");
    }

    async fn the_app_gets_one_signed_request(&self) {
        for (option, field, target) in
            [("dm", "targetUserId", "zoë \"x\""), ("channel", "targetChannelId", "#general")]
        {
            self.receiver.next(Says::Yes(json!({ "messageId": "m-7" }).to_string()));
            let shared =
                self.share("private", json!({ "shareOption": option, field: target })).await;
            assert_eq!(shared["destination"], option);
            assert_eq!(shared["messageId"], "m-7");
            let arrived = self.receiver.take();
            let [delivery] = arrived.as_slice() else { panic!("{arrived:?}") };
            assert_eq!(delivery.path, "/deliveries");
            assert!(delivery.is_signed(), "{delivery:?}");
            assert_eq!(delivery.headers["webhook-id"].to_str().ok(), shared["shareId"].as_str());
            let data = &delivery.json()["data"];
            assert_eq!(data[field], target);
            assert_eq!(data["url"], shared["url"]);
            assert_eq!(data["userId"], "owner");
            let (_, clip) = self.ask(Method::GET, &self.clip("private"), None).await;
            assert_eq!(data["clip"]["clipId"], clip["clipId"]);
            assert_eq!(self.status(&delivery.link()).await, 200);
            let listed = self.listed("private").await;
            let row = listed.iter().find(|row| row["shareId"] == shared["shareId"]);
            let row = row.expect("it is listed");
            assert_eq!((&row[field], &row["messageId"]), (&json!(target), &json!("m-7")));
            assert!(row.get("url").is_none(), "{row:#}");
        }
        // an answer that names no message is a yes too
        for body in ["", "ok", r#"{"messageId":5}"#] {
            self.receiver.next(Says::Yes(body.to_owned()));
            let order = json!({ "shareOption": "dm", "targetUserId": "other" });
            let shared = self.share("private", order).await;
            assert!(shared.get("messageId").is_none(), "{shared:#}");
        }
        self.receiver.take();
    }

    async fn what_the_app_does_not_take_is_void(&self) {
        let before = self.listed("private").await;
        let path = format!("{}/share", self.clip("private"));
        for (says, status, code) in [
            (Says::Status(401), 403, "share_refused"),
            (Says::Status(403), 403, "share_refused"),
            (Says::Status(404), 502, "share_failed"),
            (Says::Status(500), 502, "share_failed"),
            (Says::Elsewhere, 502, "share_failed"),
            (Says::Endless, 502, "share_failed"),
            (Says::Nothing, 502, "share_failed"),
        ] {
            self.receiver.next(says.clone());
            let order = json!({ "shareOption": "channel", "targetChannelId": "general" });
            let (answered, refused) = self.ask(Method::POST, &path, Some(order)).await;
            assert_eq!((answered, &refused["code"]), (status, &json!(code)), "{says:?}");
            let arrived: Vec<Arrived> = self.receiver.take();
            let [delivery] = arrived.as_slice() else { panic!("{says:?}: {arrived:?}") };
            assert_eq!(self.status(&delivery.link()).await, 404, "{says:?}");
            assert_eq!(self.listed("private").await, before, "{says:?}");
        }
    }

    async fn orders_that_make_no_sense_are_refused(&self) {
        let path = format!("{}/share", self.clip("private"));
        let before = self.listed("private").await;
        let past = self.app().deps.clock.now().plus_seconds(-1);
        for (order, field) in [
            (json!({}), "shareOption"),
            (json!({ "shareOption": "mail" }), "shareOption"),
            (json!({ "shareOption": "dm" }), "targetUserId"),
            (json!({ "shareOption": "channel" }), "targetChannelId"),
            (json!({ "shareOption": "dm", "targetUserId": "" }), "targetUserId"),
            (json!({ "shareOption": "link", "targetUserId": "other" }), "targetUserId"),
            (
                json!({ "shareOption": "dm", "targetUserId": "a", "targetChannelId": "b" }),
                "targetChannelId",
            ),
            (json!({ "shareOption": "channel", "targetChannelId": "a\u{0}b" }), "targetChannelId"),
            (json!({ "shareOption": "link", "expiresAt": past }), "expiresAt"),
            (json!({ "shareOption": "link", "url": "http://127.0.0.1:1" }), "url"),
        ] {
            let (status, refused) = self.ask(Method::POST, &path, Some(order.clone())).await;
            assert_eq!((status, &refused["code"]), (422, &json!("validation_failed")), "{order}");
            assert_eq!(refused["errors"][0]["field"], field, "{order}");
        }
        assert_eq!(self.receiver.take().len(), 0);
        assert_eq!(self.listed("private").await, before);
    }

    async fn a_link_ends_with_the_clip(&self) {
        let link = self.link("unlisted").await;
        assert_eq!(self.status(&link).await, 200);
        assert_eq!(self.ask(Method::DELETE, &self.clip("unlisted"), None).await.0, 200);
        assert_eq!(self.status(&link).await, 404);
        let rows = dump(&self.app().deps.db, &[]).await;
        let clip = self.clip("unlisted");
        let id = clip.trim_start_matches("/clips/");
        assert!(rows["clip_share"].iter().all(|row| !row.contains(id)), "a share without a clip");
    }
}
