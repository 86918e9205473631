//! `demo`: the whole service against a simulated LiveKit, in one process: two people share their screens, their last
//! half minute becomes a clip each, over HTTP with a user's token. Then it stays up for trying the API by hand.
//! Nothing is left behind: no process, no file.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::net::TcpListener;

use super::serve::Signals;
use crate::{
    access::token::{self, Claims},
    app::{self, Failure, Running},
    clock::SystemClock,
    config::{self, Config, Demand, Sources},
    domain::id::{CommunityId, UserId},
    simulator::{Share, ShareHandle, SimConfig, Simulator},
};

mod client;
mod judge;

use client::Client;

/// The room of the demo.
const ROOM: &str = "demo-room";
/// The community of the demo.
const COMMUNITY: &str = "demo";
/// Length of the clips.
const CLIP_SECONDS: u32 = 30;

/// How it runs.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Options {
    /// End after the clips: exit code 0 if they are right
    #[arg(long)]
    once: bool,
}

/// Somebody who shares a screen.
struct Person {
    name: &'static str,
    share: Share,
    token: String,
}

/// Everything that runs; ended by [`Stage::clear`].
struct Stage {
    dir: WorkDir,
    simulator: Simulator,
    running: Running,
    people: Vec<Person>,
    _shares: Vec<ShareHandle>,
}

/// The demo's own directory, removed whatever happens.
struct WorkDir(PathBuf);

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("demo: {} was not removed: {error}", self.0.display());
        }
    }
}

/// Runs the demo.
pub(super) fn run(options: Options) -> Result<(), Failure> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
    crate::telemetry::install_log(&filter);
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let stage = set_up().await?;
        let outcome = tokio::select! {
            outcome = play(&stage, options) => outcome,
            () = signals.next() => {
                println!("\ndemo: ending");
                Ok(())
            }
        };
        stage.clear().await.and(outcome)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// What happens on the stage.
async fn play(stage: &Stage, options: Options) -> Result<(), Failure> {
    let client = Client::new(&stage.running.url())?;
    let mut sessions = Vec::new();
    for person in &stage.people {
        let id = client.start(person, ROOM, COMMUNITY).await?;
        println!(
            "demo: {} shares {}x{} {} sound; session {id}",
            person.name,
            person.share.width,
            person.share.height,
            if person.share.audio { "with" } else { "without" },
        );
        sessions.push(id);
    }
    for (person, session) in stage.people.iter().zip(&sessions) {
        client.wait_for_buffer(person, session, CLIP_SECONDS).await?;
    }
    let mut faults = Vec::new();
    for (person, session) in stage.people.iter().zip(&sessions) {
        let clip = client.capture(person, session, CLIP_SECONDS).await?;
        let file = client.download(person, &clip, &stage.dir.0).await?;
        faults.extend(judge::judge(person, &clip, &file, CLIP_SECONDS).await?);
    }
    if !faults.is_empty() {
        return Err(Failure::Failed(format!("demo: something is wrong:\n{}", faults.join("\n"))));
    }
    println!("demo: both clips are right");
    if options.once {
        return Ok(());
    }
    print_examples(stage, &sessions);
    client.show_status(stage.people.iter().zip(&sessions)).await
}

fn print_examples(stage: &Stage, sessions: &[String]) {
    let base = format!("{}{}", stage.running.url(), crate::http::BASE);
    let (Some(person), Some(session)) = (stage.people.first(), sessions.first()) else { return };
    println!("\nTry it ({}'s token works for an hour):\n", person.name);
    println!("  TOKEN={}", person.token);
    println!("  curl -s -H \"Authorization: Bearer $TOKEN\" {base}/sessions/{session}");
    println!(
        "  curl -s -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{{\"sessionId\":\"{session}\",\"durationSeconds\":10}}' {base}/capture"
    );
    println!("  curl -s -H \"Authorization: Bearer $TOKEN\" {base}/my-clips");
    println!("  API: {}/docs   simulated LiveKit: {}", stage.running.url(), stage.simulator.url());
    println!("\nCtrl-C ends it and removes {}\n", stage.dir.0.display());
}

async fn set_up() -> Result<Stage, Failure> {
    let dir = std::env::temp_dir().join(format!("livekit-replay-demo-{}", std::process::id()));
    std::fs::create_dir(&dir)
        .map_err(|error| Failure::Failed(format!("making {}: {error}", dir.display())))?;
    let dir = WorkDir(dir);
    let simulator = Simulator::start(SimConfig::default()).await?;
    let config = settings(&dir, &simulator)?;
    let auth = config.auth.clone();
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(|error| Failure::Failed(format!("opening a port: {error}")))?;
    let running = match app::start(config, Arc::new(SystemClock), listener).await {
        Ok(running) => running,
        Err(failure) => {
            simulator.shutdown().await;
            return Err(failure);
        }
    };
    simulator.set_webhook_urls(vec![format!(
        "{}{}/webhooks/livekit",
        running.url(),
        crate::http::BASE
    )]);
    println!("demo: service at {}, simulated LiveKit at {}", running.url(), simulator.url());
    let shares = [
        ("alice", Share { width: 1920, height: 1080, audio: true, ..Share::default() }),
        ("bob", Share { width: 1367, height: 769, audio: false, ..Share::default() }),
    ];
    let (mut people, mut handles) = (Vec::new(), Vec::new());
    for (name, share) in shares {
        handles.push(simulator.publish_share(ROOM, name, share)?);
        people.push(Person { name, share, token: mint(&auth, name)? });
    }
    Ok(Stage { dir, simulator, running, people, _shares: handles })
}

/// The embedded defaults with a place of its own and secrets that nobody has used before.
fn settings(dir: &WorkDir, simulator: &Simulator) -> Result<Config, Failure> {
    let flags = [
        ("data_dir", dir.0.join("data").display().to_string()),
        ("storage.buffer", dir.0.join("buffer").display().to_string()),
        ("storage.clips", dir.0.join("clips").display().to_string()),
        ("auth.jwt_secret", hex::encode(rand::random::<[u8; 32]>())),
        ("livekit.url", simulator.url()),
        ("livekit.api_key", simulator.api_key().to_owned()),
        ("livekit.api_secret", simulator.api_secret().to_owned()),
    ];
    let flags = flags.map(|(key, value)| (key.to_owned(), value, "demo".to_owned())).to_vec();
    let sources = Sources { flags, cwd: dir.0.clone(), ..Sources::default() };
    Ok(config::load(&sources, Demand::Service)?)
}

fn mint(auth: &config::Auth, user: &str) -> Result<String, Failure> {
    let communities = BTreeMap::from([(CommunityId::new(COMMUNITY), vec!["moderator".to_owned()])]);
    let claims = Claims {
        user_id: &UserId::new(user),
        name: Some(user),
        communities: &communities,
        roles: &[],
        lifetime: Duration::from_secs(3600),
    };
    Ok(token::mint(auth, &claims, crate::clock::Clock::now(&SystemClock))?)
}

impl Stage {
    async fn clear(self) -> Result<(), Failure> {
        let stopped = self.running.stop().await;
        self.simulator.shutdown().await;
        stopped
    }
}
