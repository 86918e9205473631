//! The little of H.264 that can be known without decoding: where units begin, what kind they are, the picture's size.

/// Kinds of unit that matter here.
pub(super) const IDR: u8 = 5;
pub(super) const SPS: u8 = 7;
pub(super) const PPS: u8 = 8;
pub(super) const AUD: u8 = 9;

/// One unit inside an Annex B buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit<'a> {
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

/// What a sequence parameter set says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// `profile_idc`.
    pub profile: u8,
    /// The byte of constraint flags.
    pub compatibility: u8,
    /// `level_idc`.
    pub level: u8,
    /// `chroma_format_idc`; 1 is 4:2:0.
    pub chroma: u8,
    /// Bits of a sample, brightness and colour.
    pub depth: (u8, u8),
    /// No interlaced pictures.
    pub frames_only: bool,
    /// In pixels, borders cut away.
    pub size: (u32, u32),
    /// Shape of a pixel, if said.
    pub pixel: Option<(u32, u32)>,
    /// Primaries, transfer, matrix and full range, if said.
    pub colours: Option<(u8, u8, u8, bool)>,
}

/// Shapes of a pixel by number, from 1 on (H.264, table E-1).
const PIXELS: [(u32, u32); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

/// Width and height in pixels from a sequence parameter set (with its header byte); none if it makes no sense.
pub(super) fn picture_size(sps: &[u8]) -> Option<(u32, u32)> {
    sequence(sps).map(|sequence| sequence.size)
}

/// Reads a sequence parameter set (with its header byte); none if it makes no sense.
pub(crate) fn sequence(sps: &[u8]) -> Option<Sequence> {
    let mut bits = Bits::new(sps.get(1..)?);
    let profile = bits.byte()?;
    let compatibility = bits.byte()?;
    let level = bits.byte()?;
    bits.golomb()?;
    let (mut chroma, mut depth) = (1, (8, 8));
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128) {
        chroma = bits.golomb()?;
        if chroma == 3 {
            bits.take(1)?;
        }
        let mut bits_of = || u8::try_from(bits.golomb()?.checked_add(8)?).ok();
        depth = (bits_of()?, bits_of()?);
        bits.take(1)?;
        if bits.take(1)? == 1 {
            skip_scaling(&mut bits, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    bits.golomb()?;
    match bits.golomb()? {
        0 => drop(bits.golomb()?),
        1 => skip_order_cycle(&mut bits)?,
        _ => {}
    }
    bits.golomb()?;
    bits.take(1)?;
    let (size, frames_only) = size(&mut bits, chroma)?;
    let (mut pixel, mut colours) = (None, None);
    if bits.take(1)? == 1 {
        // a set that ends early has no more to say; the decoder sees the same
        pixel = pixel_shape(&mut bits).flatten();
        colours = picture_colours(&mut bits).flatten();
    }
    let chroma = u8::try_from(chroma).ok()?;
    Some(Sequence {
        profile,
        compatibility,
        level,
        chroma,
        depth,
        frames_only,
        size,
        pixel,
        colours,
    })
}

fn size(bits: &mut Bits<'_>, chroma: u32) -> Option<((u32, u32), bool)> {
    let width = bits.golomb()?.checked_add(1)?.checked_mul(16)?;
    let rows = bits.golomb()?.checked_add(1)?.checked_mul(16)?;
    let frames_only = bits.take(1)?;
    if frames_only == 0 {
        bits.take(1)?;
    }
    let height = rows.checked_mul(2 - frames_only)?;
    bits.take(1)?;
    let (mut cut_x, mut cut_y) = (0u32, 0u32);
    if bits.take(1)? == 1 {
        let unit_x = if matches!(chroma, 1 | 2) { 2 } else { 1 };
        let unit_y = if chroma == 1 { 2 } else { 1 } * (2 - frames_only);
        cut_x = bits.golomb()?.checked_add(bits.golomb()?)?.checked_mul(unit_x)?;
        cut_y = bits.golomb()?.checked_add(bits.golomb()?)?.checked_mul(unit_y)?;
    }
    let size = (width.checked_sub(cut_x)?, height.checked_sub(cut_y)?);
    let sane = size.0 > 0 && size.1 > 0 && size.0 <= 16_384 && size.1 <= 16_384;
    sane.then_some((size, frames_only == 1))
}

fn pixel_shape(bits: &mut Bits<'_>) -> Option<Option<(u32, u32)>> {
    if bits.take(1)? == 0 {
        return Some(None);
    }
    let number = usize::from(bits.byte()?);
    if number == 255 {
        let shape = (bits.take(16)?, bits.take(16)?);
        return Some((shape.0 > 0 && shape.1 > 0).then_some(shape));
    }
    Some(number.checked_sub(1).and_then(|at| PIXELS.get(at)).copied())
}

fn picture_colours(bits: &mut Bits<'_>) -> Option<Option<(u8, u8, u8, bool)>> {
    if bits.take(1)? == 1 {
        bits.take(1)?;
    }
    if bits.take(1)? == 0 {
        return Some(None);
    }
    bits.take(3)?;
    let full = bits.take(1)? == 1;
    if bits.take(1)? == 0 {
        return Some(None);
    }
    Some(Some((bits.byte()?, bits.byte()?, bits.byte()?, full)))
}

fn skip_scaling(bits: &mut Bits<'_>, lists: u32) -> Option<()> {
    for list in 0..lists {
        if bits.take(1)? == 0 {
            continue;
        }
        let (mut last, mut next) = (8i64, 8i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + bits.signed_golomb()? + 256).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

fn skip_order_cycle(bits: &mut Bits<'_>) -> Option<()> {
    bits.take(1)?;
    bits.golomb()?;
    bits.golomb()?;
    for _ in 0..bits.golomb()?.min(256) {
        bits.golomb()?;
    }
    Some(())
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

    fn byte(&mut self) -> Option<u8> {
        u8::try_from(self.take(8)?).ok()
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
