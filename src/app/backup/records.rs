//! What owners said of their clips after a copy of the database was made stands in the records beside the clips: every
//! change is written there before it commits. A copy that is put back takes it from there.

use std::{io, path::PathBuf, time::Duration};

use crate::{
    app::{Failure, places},
    config::Config,
    domain::{id::InstanceId, keys, lifecycle::ClipStatus, time::Timestamp},
    flow::clip_files::{Record, read_record},
    store::{
        self, Db,
        clip::{self, Visibility},
        setting, share, wish,
    },
};

/// Clips in one step.
const PAGE: u64 = 200;
/// How long a step may read; a hung store must not hang the command without a word.
const STEP: Duration = Duration::from_secs(60);

/// Gives every clip the title of its record, and of both visibilities the narrower: what was narrowed since the copy must
/// not be open again. A finished clip without a record becomes private, because nobody can say what its owner wanted.
/// Answers how many clips were changed; none if the clip store has no marker, so that nothing can be said of its clips.
///
/// # Errors
/// [`Failure::Failed`] when the store does not answer or does not show a record that is there, or the database fails.
pub(super) async fn catch_up(
    config: &Config,
    db: &Db,
    now: Timestamp,
) -> Result<Option<u64>, Failure> {
    let named = setting::find(db.conn(), setting::INSTANCE_ID).await?;
    let Some(instance) = places::instance_of(&config.storage.clips).await? else { return Ok(None) };
    if named.as_deref() != Some(instance.as_str()) {
        return Ok(None);
    }
    let (mut changed, mut after) = (0, None);
    loop {
        let rows = clip::list_after(db.conn(), after.as_ref(), PAGE).await?;
        let Some(last) = rows.last() else { return Ok(Some(changed)) };
        after = Some(last.id.clone());
        let records = read(config, &instance, &rows).await?;
        if places::instance_of(&config.storage.clips).await?.as_ref() != Some(&instance) {
            return Err(Failure::Failed("the clip store went away meanwhile".to_owned()));
        }
        let tx = db.begin().await?;
        for (row, record) in rows.iter().zip(records) {
            changed += u64::from(amend(&tx, row, record, now).await?);
        }
        store::commit(tx).await?;
    }
}

/// The records of these clips, as far as they can be read.
async fn read(
    config: &Config,
    instance: &InstanceId,
    rows: &[clip::Model],
) -> Result<Vec<Option<Record>>, Failure> {
    let paths: Vec<Option<PathBuf>> = rows
        .iter()
        .map(|row| keys::sidecar_path(&row.user_id, &row.id).ok())
        .map(|path| Some(config.storage.clips.join(path?)))
        .collect();
    let instance = instance.clone();
    let work = move || -> Vec<io::Result<Option<Record>>> {
        let one = |path: &Option<PathBuf>| match path {
            Some(path) => read_record(path, &instance),
            None => Ok(None),
        };
        paths.iter().map(one).collect()
    };
    let Ok(done) = tokio::time::timeout(STEP, tokio::task::spawn_blocking(work)).await else {
        let path = config.storage.clips.display();
        return Err(Failure::Failed(format!("{path} does not answer (a hung mount?)")));
    };
    let read = done.map_err(|error| Failure::Failed(error.to_string()))?;
    // what cannot be read may say anything: that is not the same as no record
    let told = rows.iter().zip(read).map(|(row, record)| match record {
        Ok(record) => {
            Ok(record.filter(|found| found.clip_id == row.id && found.user_id == row.user_id))
        }
        Err(error) => Err(Failure::Failed(format!("the record of clip {}: {error}", row.id))),
    });
    told.collect()
}

/// Whether the row was changed.
async fn amend(
    tx: &store::Tx,
    row: &clip::Model,
    record: Option<Record>,
    now: Timestamp,
) -> Result<bool, Failure> {
    let visibility = match &record {
        Some(record) if record.visibility.openness() < row.visibility.openness() => {
            record.visibility
        }
        None if row.status == ClipStatus::Ready => Visibility::Private,
        _ => row.visibility,
    };
    let visibility = (visibility != row.visibility).then_some(visibility);
    let title = record.map(|record| record.title).filter(|title| *title != row.title);
    if visibility.is_none() && title.is_none() {
        return Ok(false);
    }
    let narrower = visibility.is_some();
    if narrower {
        share::delete_of_clip(tx, &row.id).await?;
        wish::delete(tx, &row.id).await?;
    }
    Ok(clip::amend(tx, &row.id, title, visibility, narrower, now).await?)
}
