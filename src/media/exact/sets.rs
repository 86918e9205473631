//! The parameter sets of a clip: those of the source side by side with those of its encoded edges.

use std::collections::BTreeMap;

use super::Unfit;
use crate::media::ts::{
    ParameterSets,
    h264::{Format, PPS, SPS, Sps, picture_set_ids},
};

/// Sequence sets have ids below this; picture sets may have greater ones.
const IDS: u32 = 32;

/// Sets that can be told apart by their ids, all of one format.
#[derive(Debug, Default)]
pub(super) struct Sets {
    known: BTreeMap<(u8, u32), Vec<u8>>,
    format: Option<Format>,
}

impl Sets {
    /// Adds sets of the source.
    ///
    /// # Errors
    /// [`Unfit`] if they cannot stand beside the others.
    pub fn add(&mut self, sets: &ParameterSets) -> Result<(), Unfit> {
        for unit in sets.units() {
            let kind = unit.first().map_or(0, |first| first & 31);
            let id = match kind {
                SPS => self.sequence(unit)?,
                PPS => picture_set_ids(unit).ok_or(Unfit::UnreadableSets)?.0,
                _ => return Err(Unfit::UnreadableSets),
            };
            let known = self.known.entry((kind, id)).or_insert_with(|| unit.clone());
            if known != unit {
                return Err(Unfit::ClashingSets);
            }
        }
        Ok(())
    }

    fn sequence(&mut self, unit: &[u8]) -> Result<u32, Unfit> {
        let sps = Sps::read(unit).ok_or(Unfit::UnreadableSets)?;
        match &self.format {
            // the same id with other content says more than the difference in content
            Some(format) if *format != sps.format => {
                let clash = self.known.contains_key(&(SPS, sps.id));
                return Err(if clash { Unfit::ClashingSets } else { Unfit::ChangedFormat });
            }
            Some(_) => {}
            None => self.format = Some(sps.format),
        }
        Ok(sps.id)
    }

    /// What all of them say alike.
    pub fn format(&self) -> Result<&Format, Unfit> {
        self.format.as_ref().ok_or(Unfit::UnreadableSets)
    }

    /// An id that neither kind of set has yet.
    pub fn free_id(&self) -> Result<u32, Unfit> {
        let taken =
            |id: u32| self.known.contains_key(&(SPS, id)) || self.known.contains_key(&(PPS, id));
        (0..IDS).find(|&id| !taken(id)).ok_or(Unfit::NoFreeId)
    }

    /// All sets, sequence sets first.
    pub fn units(&self) -> Vec<Vec<u8>> {
        self.known.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(units: &[Vec<u8>]) -> ParameterSets {
        ParameterSets::of(units.to_vec())
    }

    /// A small set by hand: main profile, `id`, `width` in blocks of 16.
    fn sequence(id: u32, width: u32) -> Vec<u8> {
        let mut bits = String::new();
        let mut golomb = |value: u32| {
            let code = format!("{:b}", value + 1);
            bits.push_str(&"0".repeat(code.len() - 1));
            bits.push_str(&code);
        };
        golomb(id);
        // frame numbers, order type 2, one reference
        for value in [0, 2, 1] {
            golomb(value);
        }
        bits.push('0');
        for value in [width - 1, 8] {
            let code = format!("{:b}", value + 1);
            bits.push_str(&"0".repeat(code.len() - 1));
            bits.push_str(&code);
        }
        // frames only, direct, no cropping, no optional part, stop
        bits.push_str("11001");
        while !bits.len().is_multiple_of(8) {
            bits.push('0');
        }
        let bytes = (0..bits.len()).step_by(8);
        let bytes = bytes.map(|at| u8::from_str_radix(&bits[at..at + 8], 2).expect("bits"));
        [vec![0x67, 77, 0x40, 30], bytes.collect()].concat()
    }

    /// Picture set `id` (below 3) of sequence set `of` (below 3), told apart by `rest`.
    fn picture(id: u32, of: u32, rest: u8) -> Vec<u8> {
        let code = ["1", "010", "011"];
        let bits = format!("{}{}1", code[id as usize], code[of as usize]);
        let byte = u8::from_str_radix(&format!("{bits:0<8}"), 2).expect("bits");
        vec![0x68, byte, rest]
    }

    #[test]
    fn equal_sets_are_one_and_a_free_id_is_found() {
        let mut all = Sets::default();
        all.add(&sets(&[sequence(0, 20), picture(0, 0, 7)])).expect("alone");
        all.add(&sets(&[sequence(0, 20), picture(0, 0, 7)])).expect("the same again");
        all.add(&sets(&[sequence(0, 20), picture(1, 0, 9)])).expect("another picture set");
        assert_eq!(all.units().len(), 3);
        assert_eq!(all.free_id(), Ok(2));
        assert_eq!(all.format().expect("there").size, (320, 144));
    }

    #[test]
    fn sets_that_cannot_stand_side_by_side_are_told_apart() {
        let add = |second: &[Vec<u8>]| {
            let mut all = Sets::default();
            all.add(&sets(&[sequence(0, 20), picture(0, 0, 7)])).expect("alone");
            all.add(&sets(second)).expect_err("unfit")
        };
        assert_eq!(add(&[sequence(0, 20), picture(0, 0, 8)]), Unfit::ClashingSets);
        assert_eq!(add(&[sequence(0, 30), picture(0, 0, 7)]), Unfit::ClashingSets);
        assert_eq!(add(&[sequence(1, 30), picture(1, 1, 7)]), Unfit::ChangedFormat);
        assert_eq!(add(&[vec![0x67, 77]]), Unfit::UnreadableSets);
        assert_eq!(add(&[vec![0x6f, 77, 0, 30]]), Unfit::UnreadableSets);
    }

    #[test]
    fn when_every_id_is_taken_there_is_none() {
        let mut all = Sets::default();
        for id in 0..32 {
            all.add(&sets(&[sequence(id, 20)])).expect("alike");
        }
        assert_eq!(all.free_id(), Err(Unfit::NoFreeId));
    }
}
