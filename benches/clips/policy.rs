//! What a hundred thousand memberships cost: one decision, memory, and when a change works on the other replica. Two
//! services on one PostgreSQL of the run's own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use livekit_replay::{
    access::{
        Permission,
        policy::{Policy, Roles, Rule, default_rules},
        rulebook::Rulebook,
        token::{self, Claims},
    },
    clock::{Clock, SystemClock},
    domain::id::{CommunityId, UserId},
};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use serde_json::{Value, json};

use crate::{
    Scale,
    report::{Report, mebibytes, millis, quantile, row},
    service::{Service, usage},
};

const MEMBERS: usize = 50;
/// People, so that each is in several communities.
const PEOPLE: usize = 20_000;
/// Changes per kind.
const CHANGES: usize = 30;
const HELD: &str = "mm_keeper";

/// The run's own PostgreSQL; durability is off in it.
struct Cluster {
    data: PathBuf,
    url: String,
}

impl Cluster {
    fn start(dir: &Path) -> Cluster {
        let out = shell(&format!(
            ". scripts/postgres.sh && postgres_start '{}' && echo \"$POSTGRES_DATA $POSTGRES_URL\"",
            dir.display()
        ));
        let (data, url) = out.trim().rsplit_once(' ').expect("scripts/postgres.sh starts one");
        Cluster { data: PathBuf::from(data), url: url.to_owned() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        shell(&format!(
            ". scripts/postgres.sh && POSTGRES_DATA='{}' postgres_stop",
            self.data.display()
        ));
    }
}

fn shell(text: &str) -> String {
    let mut command = Command::new("bash");
    let out = command.args(["-c", text]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Times of many requests, one after the other.
struct Timed {
    median: Duration,
    p99: Duration,
}

impl Timed {
    fn of(times: &[Duration]) -> Timed {
        Timed { median: quantile(times, 0.5), p99: quantile(times, 0.99) }
    }
}

struct Stage {
    here: Service,
    there: Service,
    db: DatabaseConnection,
    requests: usize,
}

pub async fn policy(scale: Scale, report: &mut Report) {
    in_process(report).await;
    let place = crate::cache().join(format!("postgres-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&place).unwrap();
    let cluster = Cluster::start(&place);
    let with = || vec![("DATABASE_URL", cluster.url.clone())];
    let stage = Stage {
        here: Service::start(with()).await,
        there: Service::start(with()).await,
        db: Database::connect(&cluster.url).await.unwrap(),
        requests: scale.count("BENCH_DECISIONS", 1000, 5000),
    };
    let most = scale.count("BENCH_MEMBERSHIPS", 100_000, 100_000);
    let mut decisions =
        vec![row(["memberships", "role rows", "rules", "request", "status", "median", "p99"])];
    let mut changes = vec![row([
        "memberships",
        "change on one replica",
        "changes",
        "answered the old way on the other",
        "median",
        "worst",
    ])];
    let mut memory = vec![row(["memberships", "resident memory"])];
    for memberships in [10, most] {
        stage.fill(memberships).await;
        stage.decisions(memberships, &mut decisions).await;
        stage.changes(memberships, &mut changes).await;
        let resident = mebibytes(usage(stage.there.pid()).resident);
        memory.push(vec![memberships.to_string(), resident]);
    }
    let said = format!("{DECISIONS} {} requests of each kind.", stage.requests);
    report.table("Decisions among many memberships", &said, &decisions);
    report.table("A change of roles on the other replica", CHANGED, &changes);
    report.table("Memory with many memberships", MEMORY, &memory);
    let Stage { here, there, db, .. } = stage;
    db.close().await.unwrap();
    here.close().await;
    there.close().await;
    drop(cluster);
    std::fs::remove_dir_all(&place).unwrap();
}

const DECISIONS: &str = "Two services on one PostgreSQL, communities of 50 members, every tenth a moderator; every second \
    community defines a role of its own. Requests one after the other, each by another member in another community, with \
    tokens that carry no roles. `GET /me/preferences` asks for no right and reads one row: the price of a request. The \
    busy member belongs to every community.";

const MEMORY: &str = "Of the replica that was asked, after all of the requests above. Memberships stay in the database; rules are in \
    memory, and up to 256 communities' own policies.";

const CHANGED: &str = "From the 2xx on one replica to the first answer by the new state on the other, which is asked at \
    once. Until that answer every one by the old state is counted.";

/// Rules alone, without database and HTTP: all of them in one enforcer, and opened where it is asked.
async fn in_process(report: &mut Report) {
    let mut rows = vec![row([
        "communities with a role of their own",
        "way",
        "read the rules",
        "first decision there",
        "permitted",
        "refused",
    ])];
    for communities in [0, 1000, 5000] {
        let mut rules = default_rules();
        for number in 0..communities {
            let community = CommunityId::new(format!("c{number:05}"));
            for permission in [Permission::CaptureReplay, Permission::ManageReplayLimits] {
                rules.push(Rule::new(HELD, Some(&community), permission));
            }
        }
        let community = CommunityId::new(format!("c{:05}", communities / 2));
        let keeper = if communities == 0 { "admin" } else { HELD };
        let permitted = Roles::new([], [keeper.to_owned()], true);
        let refused = Roles::new([], [], true);
        let timed = |policy: &Policy, roles: &Roles, expected: bool, rounds: usize| {
            let mut times = Vec::new();
            for _ in 0..rounds {
                let began = Instant::now();
                let decision =
                    policy.explain(roles, Some(&community), Permission::ManageReplayLimits);
                times.push(began.elapsed());
                assert_eq!(decision.unwrap().allowed, expected);
            }
            quantile(&times, 0.5)
        };
        let mut push = |way: &str, read: Duration, opened: Duration, policy: &Policy| {
            let first = opened + timed(policy, &permitted, true, 1);
            rows.push(vec![
                communities.to_string(),
                way.to_owned(),
                millis(read),
                millis(first),
                micros(timed(policy, &permitted, true, 100)),
                micros(timed(policy, &refused, false, 100)),
            ]);
        };
        let began = Instant::now();
        let all = Policy::build(rules.clone()).await.unwrap();
        push("one enforcer for all", began.elapsed(), Duration::ZERO, &all);
        let began = Instant::now();
        let book = Rulebook::read(rules).await.unwrap();
        let read = began.elapsed();
        let began = Instant::now();
        let there = book.policy_in(Some(&community)).await.unwrap();
        push("as the service does", read, began.elapsed(), &there);
    }
    let said = "Rules in memory, without database and HTTP; each such role permits two things.";
    report.table("A decision in the process alone", said, &rows);
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

impl Stage {
    fn token(&self, user: &str) -> String {
        let roles = if user == "root" { vec!["instance_admin".to_owned()] } else { Vec::new() };
        let claims = Claims {
            user_id: &UserId::new(user),
            name: None,
            communities: &BTreeMap::new(),
            roles: &roles,
            lifetime: Duration::from_secs(86_400),
        };
        token::mint(&self.here.config.auth, &claims, SystemClock.now()).unwrap()
    }

    /// Members and roles, as many statements would have brought them.
    async fn fill(&self, memberships: usize) {
        let now = SystemClock.now().as_micros();
        // member n of everything; the busy one takes the first seat everywhere
        let person =
            format!("case when n % {MEMBERS} = 0 then 'busy' else 'u' || (n % {PEOPLE}) end");
        let community = format!("'c' || lpad((n / {MEMBERS})::text, 5, '0')");
        let members = |role: &str, which: &str| {
            format!(
                "insert into member_role (community_id, user_id, role, created_at)
                 select {community}, {person}, '{role}', {now} from generate_series(0, {}) n where {which}
                 on conflict do nothing",
                memberships - 1
            )
        };
        let own = |permission: &str| {
            format!(
                "insert into casbin_rule (ptype, v0, v1, v2)
                 select 'p', 'r:{HELD}', 'c:c' || lpad(n::text, 5, '0'), '{permission}'
                 from generate_series(0, {}) n where n % 2 = 0 on conflict do nothing",
                memberships.div_ceil(MEMBERS) - 1
            )
        };
        for statement in [
            members("member", "true"),
            members("moderator", "n % 10 = 1"),
            members(HELD, &format!("n % {MEMBERS} = 2")),
            own("CAPTURE_REPLAY"),
            own("MANAGE_REPLAY_LIMITS"),
            "update setting set value = 'filled-' || value where key = 'policy_version'".to_owned(),
            "analyze".to_owned(),
        ] {
            self.db.execute_unprepared(&statement).await.unwrap();
        }
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = format!("select count(*)::bigint as n from {table}");
        let row = self
            .db
            .query_one_raw(sea_orm::Statement::from_string(self.db.get_database_backend(), sql));
        row.await.unwrap().unwrap().try_get("", "n").unwrap()
    }

    async fn timed(&self, ask: impl Fn(usize) -> (String, String), status: u16) -> Timed {
        let mut times = Vec::with_capacity(self.requests);
        for number in 0..self.requests {
            let (user, path) = ask(number);
            let token = self.token(&user);
            let began = Instant::now();
            let (answered, body) = self.there.ask(&token, "GET", &path, Value::Null).await;
            times.push(began.elapsed());
            assert_eq!(answered, status, "{user} {path}: {body:#}");
        }
        Timed::of(&times)
    }

    async fn decisions(&self, memberships: usize, rows: &mut Vec<Vec<String>>) {
        let communities = memberships.div_ceil(MEMBERS);
        let (held, rules) = (self.count("member_role").await, self.count("casbin_rule").await);
        // a stride that meets them all in another order
        let community = move |number: usize| (number * 7919) % communities;
        let even = move |number: usize| community(number) / 2 * 2;
        let config = |community: usize| format!("/admin/community/c{community:05}/config");
        let member = move |community: usize, seat: usize| match seat {
            0 => "busy".to_owned(),
            seat => format!("u{}", (community * MEMBERS + seat) % PEOPLE),
        };
        let plain = 5;
        let mut push = |request: &str, status: u16, timed: Timed| {
            let (median, p99) = (millis(timed.median), millis(timed.p99));
            rows.push(vec![
                memberships.to_string(),
                held.to_string(),
                rules.to_string(),
                request.to_owned(),
                status.to_string(),
                median,
                p99,
            ]);
        };
        let own = |number: usize| (member(community(number), plain), "/me/preferences".to_owned());
        push("`GET /me/preferences`", 200, self.timed(own, 200).await);
        let may = |number: usize| (member(even(number), 2), config(even(number)));
        push("`GET /admin/community/{id}/config`", 200, self.timed(may, 200).await);
        let not = |number: usize| (member(community(number), plain), config(community(number)));
        push("the same, by a plain member", 403, self.timed(not, 403).await);
        let busy = |number: usize| (member(community(number), 0), config(community(number)));
        push("the same, by the busy member", 403, self.timed(busy, 403).await);
    }

    async fn changes(&self, memberships: usize, rows: &mut Vec<Vec<String>>) {
        let communities = memberships.div_ceil(MEMBERS);
        let root = self.token("root");
        let kinds = [
            "a role is given",
            "the member is removed",
            "a role permits more",
            "a role permits less",
        ];
        let mut times: [Vec<Duration>; 4] = Default::default();
        let mut late = [0; 4];
        for number in 0..CHANGES {
            let community = (number * 7919) % communities / 2 * 2;
            let at = format!("/admin/community/c{community:05}");
            let user = format!("new-{memberships}-{number}");
            let given = format!("{at}/members/{user}/roles/{HELD}");
            let member = format!("{at}/members/{user}");
            let role = format!("{at}/roles/second-{number}");
            let second = format!("{at}/members/{user}/roles/second-{number}");
            let may = json!({ "permissions": ["MANAGE_REPLAY_LIMITS"] });
            let none = json!({ "permissions": [] });
            let steps: [(Option<usize>, &str, &str, Value, u16); 6] = [
                (Some(0), "PUT", &given, Value::Null, 200),
                (Some(1), "DELETE", &member, Value::Null, 403),
                (None, "PUT", &role, none.clone(), 403),
                (None, "PUT", &second, Value::Null, 403),
                (Some(2), "PUT", &role, may, 200),
                (Some(3), "PUT", &role, none, 403),
            ];
            let token = self.token(&user);
            let config = format!("{at}/config");
            for (kind, method, path, body, expected) in steps {
                let (status, answer) = self.here.ask(&root, method, path, body).await;
                assert!((200..300).contains(&status), "{method} {path}: {status} {answer:#}");
                let began = Instant::now();
                let mut old = 0;
                while self.there.ask(&token, "GET", &config, Value::Null).await.0 != expected {
                    old += 1;
                    assert!(
                        began.elapsed() < Duration::from_secs(60),
                        "{method} {path} never works"
                    );
                }
                if let Some(kind) = kind {
                    times[kind].push(began.elapsed());
                    late[kind] += old;
                }
            }
        }
        for (kind, name) in kinds.iter().enumerate() {
            rows.push(vec![
                memberships.to_string(),
                (*name).to_owned(),
                times[kind].len().to_string(),
                late[kind].to_string(),
                millis(quantile(&times[kind], 0.5)),
                millis(quantile(&times[kind], 1.0)),
            ]);
        }
    }
}
