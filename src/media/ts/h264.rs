//! The little of H.264 that can be known without decoding: where units begin, what kind they are, what the parameter
//! sets say.

mod sps;
mod structure;

pub(super) use sps::picture_size;
pub(crate) use sps::{Colour, Format, Sequence, Sps, picture_set_ids, sequence};
pub(super) use structure::fault;

/// Kinds of unit that matter here.
pub(crate) const IDR: u8 = 5;
pub(crate) const SPS: u8 = 7;
pub(crate) const PPS: u8 = 8;
pub(crate) const AUD: u8 = 9;

/// One unit inside an Annex B buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit<'a> {
    pub kind: u8,
    /// Without start code and without trailing zeros.
    pub bytes: &'a [u8],
    /// Of the unit's first byte in the buffer.
    pub at: usize,
}

/// The units before the first slice, and that slice. Looks no further, so it costs little on large pictures.
pub(super) fn head(data: &[u8]) -> Head<'_> {
    let mut head = Head::default();
    let mut at = next_start(data, 0);
    while let Some(begin) = at {
        let Some(&first) = data.get(begin) else { break };
        let kind = first & 31;
        if (1..=IDR).contains(&kind) {
            head.slice = Some(kind);
            break;
        }
        let next = next_start(data, begin);
        let end = next.map_or(data.len(), |next| next - 3);
        let bytes = trim_zeros(data.get(begin..end).unwrap_or_default());
        head.units.push(Unit { kind, bytes, at: begin });
        at = next;
    }
    head
}

/// All units of an access unit, in order.
pub(crate) fn units(data: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    let mut at = next_start(data, 0);
    std::iter::from_fn(move || {
        let begin = at?;
        let first = data.get(begin)?;
        at = next_start(data, begin);
        let end = at.map_or(data.len(), |next| next - 3);
        let bytes = trim_zeros(data.get(begin..end).unwrap_or_default());
        Some(Unit { kind: first & 31, bytes, at: begin })
    })
}

/// What [`head`] found.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub units: Vec<Unit<'a>>,
    /// Kind of the first slice.
    pub slice: Option<u8>,
}

/// The position after the next `00 00 01` at or after `from`.
fn next_start(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let &[a, b, c] = data.get(at..at + 3)? else { return None };
        match (a, b, c) {
            (0, 0, 1) => return Some(at + 3),
            (_, _, 0) => at += 1,
            (_, _, 1) => at += 1,
            _ => at += 3,
        }
    }
}

fn trim_zeros(mut unit: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = unit {
        unit = rest;
    }
    unit
}

/// Reads bits, leaving out the escape byte of `00 00 03`.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
    current: u8,
    zeros: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0, left: 0, current: 0, zeros: 0 }
    }

    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            let mut byte = *self.bytes.get(self.at)?;
            if self.zeros >= 2 && byte == 3 {
                self.at += 1;
                self.zeros = 0;
                byte = *self.bytes.get(self.at)?;
            }
            self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
            self.at += 1;
            self.current = byte;
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.current >> self.left & 1))
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | self.bit()?))
    }

    fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.bit().map(drop))
    }

    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = u64::from(self.take(zeros)?);
        u32::try_from((1u64 << zeros) - 1 + rest).ok()
    }

    fn signed_golomb(&mut self) -> Option<i64> {
        let code = i64::from(self.golomb()?);
        Some(if code & 1 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }
}
