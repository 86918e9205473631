//! Segments that turn out damaged while a clip is cut: they are found, taken back from the index, and the clip is cut
//! around them, so that one bad file costs its own seconds and no more.

use std::collections::BTreeSet;

use super::{Attempt, Planned, SHORTEST_DEADLINE, ffmpeg};
use crate::{
    error::{Code, Result},
    flow::{
        health,
        index::{self, Place},
        material::Material,
        stores::{self, Which},
    },
    media::{compose::CutPart, cut::CutOutcome, ffmpeg::Limits, verify},
    store::segment::{self, SegmentState},
};

/// Each turn finds all there is to be found then; files that keep changing must not keep a worker for ever.
const MOST_TURNS: u32 = 5;

/// How far the search for the damage goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// Bytes and structure.
    Files,
    /// Every picture is decoded too.
    Pictures,
}

/// What an outcome gives reason to search for.
fn search(cut: &Result<CutOutcome>) -> Option<Search> {
    match cut {
        Ok(outcome) => outcome.suspect.then_some(Search::Pictures),
        Err(error) => match error.code() {
            Code::NoUsableSegments | Code::StorageUnavailable => Some(Search::Files),
            Code::FfmpegFailed => Some(Search::Pictures),
            _ => None,
        },
    }
}

impl Attempt<'_> {
    /// Cuts what was planned; around segments that are not what they were when they were indexed, if that is what
    /// stands in the way. `planned` then is what was cut.
    ///
    /// # Errors
    /// Of the last try; `window_has_gaps` where gaps are refused.
    pub(super) async fn cut_around_damage(
        &self,
        linked: Result<Vec<CutPart>>,
        planned: &mut Planned,
    ) -> Result<CutOutcome> {
        let mut linked = linked;
        let mut turns = 0;
        loop {
            turns += 1;
            let cut = match linked {
                Ok(parts) => self.cut(parts, planned.plan.starts_at).await,
                Err(error) => Err(error),
            };
            let Some(search) = search(&cut).filter(|_| turns <= MOST_TURNS) else { return cut };
            if !self.take_back(planned, search).await? {
                return cut;
            }
            // a link may lead to what has been replaced meanwhile
            self.clean_up().await;
            let session = &self.clip.session_id;
            index::index_session(self.deps, session).await?;
            let material = Material::load(self.deps.db.conn(), session).await?;
            *planned = self.plan(material)?;
            linked = self.link(planned).await;
        }
    }

    /// Whether any segment of the plan was found damaged; it is not usable from now on.
    async fn take_back(&self, planned: &Planned, search: Search) -> Result<bool> {
        let rows = self.rows(planned);
        let mut found = false;
        for (row, place) in &rows {
            if let Some(state) = index::recheck(self.deps, row, place.clone()).await? {
                found |= index::take_back(self.deps, row, state).await?;
            }
        }
        if found || search == Search::Files {
            return Ok(found);
        }
        // a decoder that does not work says nothing about what it is given
        if health::prove_ffmpeg(self.deps).await.is_err() {
            return Ok(false);
        }
        let mut rotten = Vec::new();
        for (row, place) in &rows {
            // asked twice: whatever ends a process once (a signal, a lack of memory) is no fault of the segment
            if !self.decodes(place).await? && !self.decodes(place).await? {
                rotten.push(row);
            }
        }
        // when nothing decodes, it is the decoder that is at fault, and when it has ceased to work meanwhile
        let works = rotten.is_empty() || health::prove_ffmpeg(self.deps).await.is_ok();
        if rotten.len() == rows.len() || !works {
            return Ok(false);
        }
        for row in rotten {
            found |= index::take_back(self.deps, row, SegmentState::Corrupt).await?;
        }
        Ok(found)
    }

    async fn decodes(&self, place: &Place) -> Result<bool> {
        let limits = Limits {
            deadline: SHORTEST_DEADLINE,
            stall: self.deps.config.capture.stall,
            cancel: self.cancel.clone(),
        };
        let ours = place.ours.clone();
        let linked =
            stores::work(&self.deps.stores, Which::Clips, move || Ok(ours.exists())).await?;
        let file = if linked { &place.ours } else { &place.original };
        verify::decodes(&ffmpeg(), file, &limits).await
    }

    /// Every segment of a plan once, and where it is.
    fn rows<'a>(&self, planned: &'a Planned) -> Vec<(&'a segment::Model, Place)> {
        let material = &planned.material;
        let used: BTreeSet<usize> =
            planned.plan.parts.iter().flat_map(|part| part.segments.iter().copied()).collect();
        let row = |index: usize| {
            let row = material.rows.get(index)?;
            let (ours, original) = self.places(material, row).ok()?;
            Some((row, Place { ours, original }))
        };
        used.into_iter().filter_map(row).collect()
    }
}
