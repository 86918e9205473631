//! A headless Chromium of its own profile, and the small web server whose page plays what it is told to.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, process::Command, sync::watch};
use tokio_util::sync::CancellationToken;
use tower_http::services::ServeDir;

/// For everything one page does.
const PATIENCE: Duration = Duration::from_secs(240);
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Something to play.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub name: String,
    /// Below `/files`, or any other address.
    pub url: String,
    /// Played through hls.js instead of by the browser itself.
    pub hls: bool,
    /// Moments to go to, in seconds.
    pub at: Vec<f64>,
    /// Where playing begins, and for how long, in seconds.
    pub play_from: f64,
    pub play_seconds: f64,
    /// It is looked at once it is that long, in seconds: a playlist may still grow.
    pub grows_to: f64,
}

/// What the browser showed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub name: String,
    /// Before anything was asked for.
    pub first: Option<i64>,
    /// As soon as it could be shown.
    pub duration_at_open: f64,
    pub duration: f64,
    /// After it had played to its end: the browser corrects itself by what was stored.
    pub duration_at_end: f64,
    /// At the moments asked for.
    pub shown: Vec<Picture>,
    /// While it played: the times are those the browser gives the pictures.
    pub played: Vec<Picture>,
    /// After it had played to its end.
    pub last: Option<i64>,
    /// Bytes of sound decoded.
    pub audio_bytes: u64,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Picture {
    pub at: f64,
    /// `None`: unreadable.
    pub number: Option<i64>,
}

/// Where the program is, if it is installed.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name)));
    places.find(|place| place.is_file())
}

struct Page {
    plan: Vec<Item>,
    result: watch::Sender<Option<Vec<Shown>>>,
}

/// Lets the browser play all items, whose files lie below `files`; a picture of the page goes to `screenshot`.
pub async fn watch_in(
    browser: &Path,
    files: &Path,
    plan: Vec<Item>,
    screenshot: &Path,
) -> Vec<Shown> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    watch_from(listener, browser, files, plan, screenshot).await
}

/// The same, with a page of an origin that is known before.
pub async fn watch_from(
    listener: TcpListener,
    browser: &Path,
    files: &Path,
    plan: Vec<Item>,
    screenshot: &Path,
) -> Vec<Shown> {
    let page = Arc::new(Page { plan, result: watch::Sender::new(None) });
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assets");
    let html = std::fs::read_to_string(assets.join("browser/page.html")).unwrap();
    let router = Router::new()
        .route("/", get(async move || axum::response::Html(html)))
        .route("/plan", get(async |State(page): State<Arc<Page>>| Json(page.plan.clone())))
        .route("/result", post(take_result))
        .route("/hold", get(hold))
        .nest_service("/assets", ServeDir::new(&assets))
        .nest_service("/files", ServeDir::new(files))
        .with_state(page.clone());
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(
        axum::serve(listener, router)
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future(),
    );
    let profile = files.join(format!("profile-{}", uuid::Uuid::new_v4().simple()));
    let mut command = Command::new(browser);
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
            "--mute-audio",
        ])
        .args(["--disable-component-update", "--disable-extensions", "--hide-scrollbars"])
        .args(["--autoplay-policy=no-user-gesture-required", "--window-size=1100,900"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", screenshot.display()))
        .arg(format!("http://{address}/"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn().unwrap();
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    // those of its processes that outlive the first one
    if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    stop.cancel();
    server.abort();
    let _ = server.await;
    let _ = std::fs::remove_dir_all(&profile);
    let said = ended.map(|out| String::from_utf8_lossy(&out.unwrap().stderr).into_owned());
    let shown = page.result.borrow().clone();
    shown.unwrap_or_else(|| panic!("the page told nothing; the browser: {said:?}"))
}

async fn take_result(State(page): State<Arc<Page>>, body: Bytes) -> StatusCode {
    let shown = serde_json::from_slice(&body).expect("what the page tells");
    page.result.send_replace(Some(shown));
    StatusCode::NO_CONTENT
}

/// Answers when the results are there: until then the page counts as loading.
async fn hold(State(page): State<Arc<Page>>) -> StatusCode {
    let mut result = page.result.subscribe();
    let _ = result.wait_for(Option::is_some).await;
    StatusCode::NO_CONTENT
}
