//! `clips verify`: all clips compared with their files, a page at a time.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{
    print,
    reach::{Call, Reach},
};
use crate::{app::Failure, clock::SharedClock, config::Config};

/// How.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Put right what can be: records, rows of clips that were lost, clips whose file is gone
    #[arg(long)]
    repair: bool,
    /// Only say what --repair would do
    #[arg(long)]
    dry_run: bool,
    /// Compare sizes only, do not read every byte
    #[arg(long)]
    fast: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks page by page; fails when something is wrong that was not put right.
pub(super) async fn run(
    config: Config,
    clock: SharedClock,
    options: Options,
) -> Result<(), Failure> {
    let reach = Reach::find(config, clock).await?;
    let checked = all(&reach, &options).await;
    let closed = reach.close().await;
    let checked = checked?;
    if options.json {
        print::json(&checked)?;
    } else {
        let findings = checked["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        print::table(findings, &["clipId", "userId", "fault", "repaired"]);
        print::line(&format!("{} clips, {} bytes compared", checked["clips"], checked["bytes"]));
        print::fields(&checked["unknown"]);
    }
    closed?;
    let left = wrong(&checked, options.repair && !options.dry_run);
    match left {
        0 => Ok(()),
        left => Err(Failure::Failed(format!("{left} faults are left"))),
    }
}

async fn all(reach: &Reach, options: &Options) -> Result<Value, Failure> {
    let (mut clips, mut bytes, mut findings) = (0, 0, Vec::new());
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![
            ("repair", (options.repair && !options.dry_run).to_string()),
            ("bytes", (!options.fast).to_string()),
        ];
        query.extend(after.map(|after| ("after", after)));
        let path = ["admin", "clips", "verify"].map(ToOwned::to_owned).to_vec();
        let call = Call { method: Method::POST, path, query, body: None, as_user: None };
        let answer = reach.call(&call).await?;
        clips += answer["clips"].as_u64().unwrap_or(0);
        bytes += answer["bytes"].as_u64().unwrap_or(0);
        findings.extend(answer["findings"].as_array().cloned().unwrap_or_default());
        after = answer["next"].as_str().map(ToOwned::to_owned);
        if after.is_none() {
            let unknown = &answer["unknown"];
            return Ok(json!({
                "clips": clips, "bytes": bytes, "findings": findings, "unknown": unknown,
            }));
        }
    }
}

/// Faults that are left: what was not put right or could not be looked at, and files without a row unless that was the
/// time to care for them.
fn wrong(checked: &Value, repaired: bool) -> u64 {
    let findings = checked["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let open = findings.iter().filter(|finding| finding["repaired"] != true).count();
    let unknown = |name: &str| checked["unknown"][name].as_u64().unwrap_or(0);
    let strange = unknown("restored") + unknown("deletionsFinished") + unknown("quarantined");
    u64::try_from(open).unwrap_or(u64::MAX) + unknown("failed") + if repaired { 0 } else { strange }
}
