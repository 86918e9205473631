//! The settings of a service under test: everything below one directory, no limit on requests.

use std::{path::Path, time::Duration};

use livekit_replay::{
    config::*,
    domain::names::{CommunityRule, CommunitySource, IdentityRule},
    simulator::Sim,
};
use secrecy::SecretString;

pub fn settings(dir: &Path, sim: &Sim, url: String) -> Config {
    let secs = Duration::from_secs;
    Config {
        data_dir: dir.to_owned(),
        database: Database { url: SecretString::from(url), max_connections: 8 },
        server: Server {
            host: "127.0.0.1".parse().expect("ip"),
            port: 0,
            public_url: None,
            trusted_proxies: vec![],
            cors_origins: vec![],
            shutdown: secs(30),
            max_wait: secs(60),
            link_secret: None,
        },
        auth: Auth::with_secret("0123456789abcdef0123456789abcdef-app"),
        livekit: Livekit {
            url: sim.url(),
            api_key: sim.api_key().to_owned(),
            api_secret: SecretString::from(sim.api_secret().to_owned()),
            webhook_keys: vec![],
            egress_output_path: dir.join("buffer"),
            start_timeout: secs(60),
            pipeline_delay: None,
            identity_pattern: IdentityRule::new("^(?<user>[^:]+)").expect("pattern"),
        },
        rooms: CommunityRule::new(
            Some("^(?<community>[a-z]+)-"),
            vec![CommunitySource::Pattern, CommunitySource::Metadata],
        )
        .expect("rule"),
        buffer: Buffer {
            length: secs(600),
            cleanup: secs(720),
            segment: secs(2),
            grace: secs(600),
            no_segment: secs(21),
            max_epoch: secs(12 * 3600),
        },
        sessions: Sessions { rejoin: secs(20), audio_wait: secs(2), orphan_max: secs(3 * 3600) },
        capture: Capture {
            muxer: Muxer::Auto,
            wait: secs(15),
            tail_wait: secs(16),
            workers: 2,
            queue: 1000,
            queue_per_user: 100,
            deadline_factor: 2.0,
            stall: secs(30),
            failed_keep: secs(3600),
        },
        clips: Clips { link_ttl: secs(3600) },
        limits: Limits {
            user_quota_bytes: 5 << 30,
            community_max_concurrent: 5,
            community_ceiling: 25,
            clip_max: secs(600),
        },
        rate_limits: RateLimits {
            start_per_minute: 0,
            capture_per_minute: 0,
            delete_per_minute: 0,
            filmstrip_per_minute: 0,
        },
        storage: Storage {
            buffer: dir.join("buffer"),
            clips: dir.join("clips"),
            buffer_dir_mode: 0o2770,
            buffer_gid: None,
            min_free_bytes: 256 << 20,
            high_percent: 85,
            critical_percent: 98,
        },
        share: None,
        webhooks: vec![],
        jobs: Jobs {
            segment_cleanup: "0 */5 * * * *".into(),
            orphan_reaper: "30 * * * * *".into(),
            reconcile: "0 * * * * *".into(),
            workdir_sweep: "15 * * * * *".into(),
            quota_audit: "0 0 3 * * *".into(),
            storage_probe: "*/30 * * * * *".into(),
        },
        log: "info".into(),
    }
}
