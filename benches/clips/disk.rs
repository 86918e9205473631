//! What a clip is compared with: a plain copy that is safe on disk, and the pipeline of the service's predecessor.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Copies a file by `cp` and syncs the copy and its directory.
pub fn copy(from: &Path, dir: &Path) -> Duration {
    let to = dir.join(format!("{}.copy", uuid::Uuid::new_v4().simple()));
    let began = Instant::now();
    let done = Command::new("cp").arg(from).arg(&to).status().unwrap();
    assert!(done.success());
    File::open(&to).unwrap().sync_all().unwrap();
    File::open(dir).unwrap().sync_all().unwrap();
    let took = began.elapsed();
    std::fs::remove_file(&to).unwrap();
    took
}

/// FFmpeg's concat demuxer with a second pass for the header, then ffprobe, then sha256sum, one after the other.
pub fn predecessor(segments: &[PathBuf], dir: &Path) -> Duration {
    let list = dir.join("list.txt");
    let out = dir.join("predecessor.mp4");
    let began = Instant::now();
    let lines = segments.iter().map(|path| format!("file '{}'\n", path.display()));
    std::fs::write(&list, lines.collect::<String>()).unwrap();
    let mut mux = Command::new("ffmpeg");
    mux.args(["-v", "error", "-nostdin", "-y", "-f", "concat", "-safe", "0", "-i"]).arg(&list);
    mux.args(["-c", "copy", "-movflags", "+faststart", "-avoid_negative_ts", "make_zero"]);
    run(mux.arg(&out));
    let mut probe = Command::new("ffprobe");
    probe.args(["-v", "error", "-show_format", "-show_streams", "-of", "json"]);
    run(probe.arg(&out));
    run(Command::new("sha256sum").arg(&out));
    let took = began.elapsed();
    std::fs::remove_file(&out).unwrap();
    std::fs::remove_file(&list).unwrap();
    took
}

/// What FFmpeg takes to encode the pictures of segments again, in one run, as exact cuts do with their edges.
pub fn encode(segments: [&Path; 2], dir: &Path) -> Duration {
    let out = dir.join("encoded.ts");
    let [first, last] = segments.map(|path| path.display().to_string());
    let began = Instant::now();
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y", "-i", &format!("concat:{first}|{last}")]);
    command.args(["-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "18"]);
    run(command.arg(&out));
    let took = began.elapsed();
    std::fs::remove_file(&out).unwrap();
    took
}

fn run(command: &mut Command) {
    // its complaints about the joins are part of the picture, not of this one's output
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(done.unwrap().success(), "{command:?}");
}
