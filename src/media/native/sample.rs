//! What the writer takes, and the change of dress from start codes to lengths.

use memchr::memmem::Finder;

/// One picture. Times are 90 kHz ticks of the clip, on any zero, the same for sound.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// When it is shown.
    pub pts: i64,
    /// When it is decoded. If these do not rise strictly, or come later than `pts`, the writer makes its own for the
    /// whole file.
    pub dts: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// The access unit; delimiters and parameter sets in it are left out, all other units kept byte for byte.
    pub data: Payload<'a>,
}

/// The bytes of an access unit.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Units behind start codes of three or four bytes.
    AnnexB(&'a [u8]),
    /// Units behind their length in four bytes.
    Prefixed(&'a [u8]),
}

/// Cuts access units into their units.
#[derive(Debug)]
pub(super) struct Splitter {
    start: Finder<'static>,
}

impl Splitter {
    pub fn new() -> Splitter {
        Splitter { start: Finder::new(&[0, 0, 1]) }
    }

    /// Hands on every unit that is not empty; false if the bytes make no sense.
    pub fn split<'a, E>(
        &self,
        data: Payload<'a>,
        mut take: impl FnMut(&'a [u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        match data {
            Payload::AnnexB(data) => {
                let Some(first) = self.start.find(data) else { return Ok(false) };
                let lead = data.get(..first).unwrap_or_default();
                if lead.iter().any(|&byte| byte != 0) {
                    return Ok(false);
                }
                let mut rest = data.get(first + 3..).unwrap_or_default();
                loop {
                    let next = self.start.find(rest);
                    let (unit, later) = match next {
                        Some(at) => (rest.get(..at), rest.get(at + 3..)),
                        None => (Some(rest), None),
                    };
                    // zeros behind a unit belong to the next start code: no unit ends with one
                    let unit = trim_zeros(unit.unwrap_or_default());
                    if !unit.is_empty() {
                        take(unit)?;
                    }
                    let Some(later) = later else { return Ok(true) };
                    rest = later;
                }
            }
            Payload::Prefixed(mut rest) => {
                while let Some((length, later)) = rest.split_first_chunk::<4>() {
                    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    let Some(unit) = later.get(..length) else { return Ok(false) };
                    if !unit.is_empty() {
                        take(unit)?;
                    }
                    rest = later.get(length..).unwrap_or_default();
                }
                Ok(rest.is_empty())
            }
        }
    }
}

fn trim_zeros(mut unit: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = unit {
        unit = rest;
    }
    unit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(data: Payload<'_>) -> Option<Vec<Vec<u8>>> {
        let mut units = Vec::new();
        let whole = Splitter::new().split(data, |unit| {
            units.push(unit.to_vec());
            Ok::<(), ()>(())
        });
        whole.expect("taking does not fail").then_some(units)
    }

    #[test]
    fn what_has_no_start_or_a_wrong_length_makes_no_sense() {
        assert_eq!(units(Payload::AnnexB(&[0x65, 1, 2])), None);
        assert_eq!(units(Payload::AnnexB(&[7, 0, 0, 1, 0x65])), None);
        assert_eq!(units(Payload::Prefixed(&[0, 0, 0, 3, 0x65, 1])), None);
        assert_eq!(units(Payload::Prefixed(&[0, 0, 0, 1, 0x65, 1])), None);
        assert_eq!(
            units(Payload::AnnexB(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1])),
            Some(vec![vec![9, 0xf0]])
        );
    }

    proptest! {
        /// Bytes 3 and above cannot make a start code by themselves.
        #[test]
        fn both_dresses_hold_the_same_units(
            wanted in prop::collection::vec((prop::collection::vec(3u8..=255, 1..300), 0usize..4), 1..9),
        ) {
            let (mut annex, mut prefixed) = (Vec::new(), Vec::new());
            for (unit, zeros) in &wanted {
                annex.resize(annex.len() + zeros, 0);
                annex.extend_from_slice(&[0, 0, 1]);
                annex.extend_from_slice(unit);
                prefixed.extend_from_slice(&(unit.len() as u32).to_be_bytes());
                prefixed.extend_from_slice(unit);
            }
            let wanted: Vec<_> = wanted.into_iter().map(|(unit, _)| unit).collect();
            prop_assert_eq!(units(Payload::AnnexB(&annex)), Some(wanted.clone()));
            prop_assert_eq!(units(Payload::Prefixed(&prefixed)), Some(wanted));
        }
    }
}
