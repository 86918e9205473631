//! An FFmpeg that does what it is told: the real one, or one that hangs, crashes, talks rubbish or is not there.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub struct Ffmpeg {
    /// All that the service finds on its `PATH`.
    pub bin: PathBuf,
    mode: PathBuf,
    hits: PathBuf,
}

impl Ffmpeg {
    pub fn make(dir: &Path) -> Ffmpeg {
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).expect("a directory");
        let (mode, hits) = (dir.join("ffmpeg-mode"), dir.join("ffmpeg-hits"));
        std::fs::write(&hits, "").expect("a file");
        let (real, probe) = (found("ffmpeg"), found("ffprobe"));
        std::os::unix::fs::symlink(probe, bin.join("ffprobe")).expect("a link");
        let (mode_file, hits_file, real) = (mode.display(), hits.display(), real.display());
        let script = format!(
            "#!/bin/sh\nread -r mode <'{mode_file}'\ncase $mode in\n\
             hang) echo x >>'{hits_file}'; exec /bin/sleep 600 ;;\n\
             crash) echo x >>'{hits_file}'; kill -SEGV $$ ;;\n\
             rubbish) echo x >>'{hits_file}'; exec /usr/bin/head -c 20000 /dev/urandom ;;\n\
             *) exec '{real}' \"$@\" ;;\nesac\n"
        );
        let program = bin.join("ffmpeg");
        std::fs::write(&program, script).expect("a script");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("ours");
        let ffmpeg = Ffmpeg { bin, mode, hits };
        ffmpeg.be("real");
        ffmpeg
    }

    /// From the next start on.
    pub fn be(&self, mode: &str) {
        let (program, away) = (self.bin.join("ffmpeg"), self.bin.join("away"));
        if mode == "missing" {
            std::fs::rename(&program, &away).expect("ours");
        } else if away.exists() {
            std::fs::rename(&away, &program).expect("ours");
        }
        // renamed into place: nobody reads half a word
        let fresh = self.mode.with_extension("new");
        std::fs::write(&fresh, format!("{mode}\n")).expect("a file");
        std::fs::rename(&fresh, &self.mode).expect("ours");
    }

    /// How often it misbehaved.
    pub fn hits(&self) -> u64 {
        std::fs::metadata(&self.hits).map_or(0, |about| about.len() / 2)
    }
}

fn found(program: &str) -> PathBuf {
    let path = std::env::var("PATH").expect("a PATH");
    let mut places = path.split(':').map(|place| Path::new(place).join(program));
    places.find(|place| place.is_file()).unwrap_or_else(|| panic!("{program} is not installed"))
}
