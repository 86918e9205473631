//! A PostgreSQL server of the campaign's own, which it may restart; by `scripts/postgres.sh`.

use std::{path::Path, process::Stdio};

use tokio::process::Command;

pub struct Cluster {
    pub url: String,
    data: String,
    port: String,
}

/// Runs a line of shell with the functions of `scripts/postgres.sh`.
async fn shell(line: &str, arguments: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres.sh");
    let line = format!("set -e; source \"$0\"; {line}");
    let mut command = Command::new("bash");
    command.args(["-c", &line, script]).args(arguments).stdin(Stdio::null());
    let done = command.output().await.expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{line}: {} {said}", done.status);
    String::from_utf8(done.stdout).expect("text").trim().to_owned()
}

impl Cluster {
    pub async fn start(dir: &Path) -> Cluster {
        let dir = dir.display().to_string();
        let line = "postgres_start \"$1\" >&2; echo \"$POSTGRES_URL $POSTGRES_DATA\"";
        let said = shell(line, &[&dir]).await;
        let (url, data) = said.split_once(' ').expect("two words");
        let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port");
        Cluster { url: url.to_owned(), data: data.to_owned(), port: port.to_owned() }
    }

    async fn stop(&self) {
        shell("POSTGRES_DATA=$1 postgres_stop", &[&self.data]).await;
    }

    /// Fast shutdown, and up again on the same port.
    pub async fn restart(&self) {
        self.stop().await;
        shell("POSTGRES_DATA=$1; postgres_up \"$2\"", &[&self.data, &self.port]).await;
    }
}

/// Also when a test fails: nobody else would end the server.
impl Drop for Cluster {
    fn drop(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres.sh");
        let line = "source \"$0\"; POSTGRES_DATA=$1 postgres_stop";
        let mut command = std::process::Command::new("bash");
        // what cannot be ended is seen by who looks at his processes
        let _ = command.args(["-c", line, script, &self.data]).status();
    }
}
