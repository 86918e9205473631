//! A PostgreSQL server of a test's own, which can be stopped and started again. Like the one of the whole test run it
//! is made by `scripts/postgres.sh`.

use std::path::{Path, PathBuf};

use tokio::process::Command;

pub struct Server {
    pub url: String,
    dir: PathBuf,
    port: String,
}

impl Server {
    /// Starts one; `None`, with a word about it, where PostgreSQL is not installed.
    pub async fn start() -> Option<Server> {
        let dir = std::env::temp_dir().join(format!("lkr-pg-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&dir).expect("a directory");
        if !run("postgres_bin >/dev/null 2>&1", &dir).await.0 {
            eprintln!("skipped: PostgreSQL is not installed");
            std::fs::remove_dir_all(&dir).expect("removed");
            return None;
        }
        let (good, url) = run("postgres_start \"$DIR\" && echo \"$POSTGRES_URL\"", &dir).await;
        assert!(good, "PostgreSQL does not start: {url}");
        let url = url.trim().to_owned();
        let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next());
        Some(Server { port: port.expect("a port").to_owned(), url, dir })
    }

    /// Stops it; whoever is connected is thrown out.
    pub async fn stop(&self) {
        let stop =
            "POSTGRES_DATA=$DIR/pgdata; postgres_stop; ! [ -e $DIR/pgdata/db/postmaster.pid ]";
        assert!(run(stop, &self.dir).await.0, "PostgreSQL does not stop");
    }

    /// Starts it again where it was.
    pub async fn start_again(&self) {
        let start = format!(
            "cd $DIR/pgdata && as_postgres \"$(postgres_bin)/pg_ctl\" -D $DIR/pgdata/db -l $DIR/pgdata/log -w -t 60 -s \
             -o '-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off' start >/dev/null 2>&1",
            self.port
        );
        assert!(run(&start, &self.dir).await.0, "PostgreSQL does not start again");
    }

    pub async fn remove(self) {
        self.stop().await;
    }
}

/// Whatever became of the test, no server and no file of it stays.
impl Drop for Server {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.dir.join("pgdata/db/postmaster.pid"));
        let pid = pid.ok().and_then(|text| text.lines().next()?.parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // all at once, as nothing of it is wanted any more
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn run(what: &str, dir: &Path) -> (bool, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres.sh");
    let mut command = Command::new("bash");
    // what the test run itself has open is nothing to a server that goes on behind it
    let alone =
        "for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -gt 2 ] && eval \"exec $fd>&-\"; done";
    let text = format!("source {script}; {alone}; {what}");
    command.arg("-c").arg(text).env("DIR", dir);
    let output = command.output().await.expect("bash");
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
