//! `users export`: what is kept of a user as a directory: his rows as `data.json`, his clips' files under `clips/`.

use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use http::Method;
use serde_json::{Value, json};

use super::{
    print,
    reach::{Call, Reach},
};
use crate::{app::Failure, clock::SharedClock, config::Config};

/// Asks for what is kept of a user and writes it below `out`, which must not be there yet.
pub(super) async fn export(
    config: Config,
    clock: SharedClock,
    user: String,
    out: PathBuf,
    as_json: bool,
) -> Result<(), Failure> {
    let reach = Reach::find(config, clock).await?;
    let call = Call {
        method: Method::GET,
        path: ["admin", "users", &user, "export"].map(ToOwned::to_owned).to_vec(),
        query: Vec::new(),
        body: None,
        as_user: None,
    };
    let answer = reach.call(&call).await;
    let closed = reach.close().await;
    let answer = answer?;
    let work = tokio::task::spawn_blocking(move || write(&out, &answer));
    let done = work.await.map_err(|error| Failure::Failed(format!("writing: {error}")))?;
    let done = done.map_err(|(path, error)| {
        Failure::Failed(format!("{} cannot be written or read: {error}", path.display()))
    })?;
    if as_json {
        print::json(&done)?;
    } else {
        print::fields(&done);
    }
    closed
}

type Trouble = (PathBuf, std::io::Error);

/// Writes rows and files; answers what there is.
fn write(out: &Path, answer: &Value) -> Result<Value, Trouble> {
    // the service's own word: this command may have been started with other settings
    let store = Path::new(answer["clipStore"].as_str().unwrap_or_default());
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    make_directory(out).map_err(at(out))?;
    let clips = out.join("clips");
    make_directory(&clips).map_err(at(&clips))?;
    let (mut files, mut bytes, mut missing) = (0_u64, 0_u64, Vec::new());
    for file in answer["files"].as_array().into_iter().flatten() {
        let (Some(path), Some(name)) = (file["path"].as_str(), file["name"].as_str()) else {
            continue;
        };
        // names are the service's own; still nothing is written outside
        if name.contains('/') || name.starts_with('.') || !is_plain(path) {
            continue;
        }
        match std::fs::copy(store.join(path), clips.join(name)) {
            Ok(copied) => {
                files += 1;
                bytes += copied;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push(name),
            Err(error) => return Err((store.join(path), error)),
        }
    }
    let rows: usize = answer["rows"]
        .as_object()
        .map(|tables| tables.values().filter_map(Value::as_array).map(Vec::len).sum())
        .unwrap_or_default();
    let data = out.join("data.json");
    let text = format!("{answer:#}\n");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&data).map_err(at(&data))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&data))?;
    Ok(json!({
        "directory": out, "rows": rows, "files": files, "bytes": bytes, "missingFiles": missing,
    }))
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

fn is_plain(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_and_nothing_over_what_is_there() {
        let dir = std::env::temp_dir().join(format!("lkr-export-{}", uuid::Uuid::now_v7()));
        let store = dir.join("store");
        std::fs::create_dir_all(store.join("key")).expect("a directory");
        std::fs::write(store.join("key/c1.mp4"), b"video").expect("a file");
        let answer = json!({ "clipStore": store, "rows": { "clip": [{}, {}] }, "files": [
            { "path": "key/c1.mp4", "name": "c1.mp4" },
            { "path": "key/c2.mp4", "name": "c2.mp4" },
            { "path": "key/c1.mp4", "name": "../c1.mp4" },
            { "path": "../store/key/c1.mp4", "name": "c3.mp4" },
        ] });
        let done = write(&dir.join("out"), &answer).expect("written");
        assert_eq!(
            (&done["rows"], &done["files"], &done["bytes"]),
            (&2.into(), &1.into(), &5.into())
        );
        assert_eq!(done["missingFiles"], json!(["c2.mp4"]));
        assert_eq!(std::fs::read_dir(dir.join("out/clips")).expect("there").count(), 1);
        assert!(write(&dir.join("out"), &answer).is_err(), "a second time");
        std::fs::remove_dir_all(dir).expect("our own directory goes");
    }
}
