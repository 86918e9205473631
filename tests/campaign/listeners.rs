//! Those who listen all the time: a stream of events for each person and each community, that comes again with its last
//! place whenever it breaks, on whatever replica.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Method;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{field::Field, plan::PEOPLE, service::COMMUNITIES, stream::Reader};

/// Who has the rights of a manager in every community, and does nothing but listen.
const WATCH: &str = "watch";

/// What arrived at each listener, in order: id and type. Named by user, or `#community`.
#[derive(Debug, Default, Clone)]
pub struct Heard(Arc<Mutex<BTreeMap<String, Told>>>);

/// What one stream or endpoint was told: ids and kinds.
type Told = Vec<(String, String)>;

impl Heard {
    pub fn all(&self) -> BTreeMap<String, Vec<(String, String)>> {
        self.0.lock().expect("whole").clone()
    }
}

pub struct Listeners {
    pub heard: Heard,
    over: CancellationToken,
    tasks: Vec<JoinHandle<usize>>,
}

impl Listeners {
    /// Begins to listen; answers when everybody has a place to go on from.
    pub async fn begin(field: &Arc<Field>) -> Listeners {
        let (heard, over) = (Heard::default(), CancellationToken::new());
        let own = PEOPLE.map(|(user, _)| (user.to_owned(), user, "/events".to_owned()));
        let communities = COMMUNITIES.map(|community| {
            (format!("#{community}"), WATCH, format!("/events?communityId={community}"))
        });
        let mut tasks = Vec::new();
        for (turn, (name, user, path)) in own.into_iter().chain(communities).enumerate() {
            heard.0.lock().expect("whole").insert(name.clone(), Vec::new());
            let mut one = Listener {
                field: Arc::clone(field),
                heard: heard.clone(),
                name,
                user,
                path,
                turn,
                last: None,
            };
            let mut reader = one.open().await.expect("a stream");
            let (_, event) = reader.read(true).await;
            assert!(event.is_none(), "a place first");
            one.last = reader.last.clone();
            let over = over.clone();
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = one.listen(reader) => {}
                }
                one.turn
            }));
        }
        Listeners { heard, over, tasks }
    }

    /// Ends all; answers how often they had to come again.
    pub async fn end(self) -> usize {
        self.over.cancel();
        let mut turns = 0;
        for (first, task) in self.tasks.into_iter().enumerate() {
            turns += task.await.expect("no panic") - first;
        }
        turns
    }
}

struct Listener {
    field: Arc<Field>,
    heard: Heard,
    name: String,
    user: &'static str,
    path: String,
    /// Which replica, modulo; one more each time.
    turn: usize,
    last: Option<String>,
}

impl Listener {
    async fn open(&self) -> Option<Reader> {
        let process = self.field.replica(self.turn % self.field.replicas());
        process.base()?;
        let sent =
            self.field.service.send(process, Method::GET, self.user, &self.path, |request| {
                let request = request.timeout(Duration::from_secs(7200));
                match &self.last {
                    Some(last) => request.header("last-event-id", last),
                    None => request,
                }
            });
        let answer = sent.await.ok()?;
        match answer.status().as_u16() {
            200 => Some(Reader::over(answer, self.last.as_deref())),
            // something is broken, or it ends
            429 | 500.. => None,
            status => {
                let said = answer.text().await.unwrap_or_default();
                self.field.wrong(format!("{} listens: {status} {said}", self.name));
                None
            }
        }
    }

    async fn listen(&mut self, reader: Reader) {
        let mut open = Some(reader);
        loop {
            if let Some(mut reader) = open.take() {
                while let (true, event) = reader.read(false).await {
                    let Some(event) = event else { continue };
                    if event.kind == "reset" {
                        self.field.wrong(format!("{} was reset", self.name));
                    }
                    let mut heard = self.heard.0.lock().expect("whole");
                    heard.get_mut(&self.name).expect("known").push((event.id, event.kind));
                }
                self.last = reader.last.clone();
            }
            self.turn += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
            open = self.open().await;
        }
    }
}
