//! Parameter sets: what a decoder would have to change where one set takes over from another.

use super::Bits;

/// A sequence parameter set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sps {
    /// Pictures name it, by way of their picture parameter set. Below 32.
    pub id: u32,
    /// Everything that has to stay the same for two sets to follow each other unnoticed.
    pub format: Format,
}

/// What a sequence parameter set says, its id left out. (Clock ticks and buffering hints for constant bitrates are
/// left out as well: in a file the container's times hold.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    /// `profile_idc`.
    pub profile: u32,
    /// `level_idc`: ten times the level.
    pub level: u32,
    /// `chroma_format_idc`; 1 is 4:2:0.
    pub chroma: u32,
    /// Bits per sample of brightness and colour.
    pub depth: (u32, u32),
    /// `max_num_ref_frames`.
    pub refs: u32,
    /// False for anything interlaced.
    pub frames_only: bool,
    /// In pixels, cropped.
    pub size: (u32, u32),
    /// Shape of a pixel; (0, 0) if not said.
    pub pixel: (u32, u32),
    /// How numbers become colours.
    pub colour: Colour,
    /// How many pictures may have to wait for a later one, if it is said.
    pub reorder: Option<u32>,
    /// Pictures that a decoder keeps, if it is said.
    pub buffered: Option<u32>,
}

/// What a file says about its pictures from a sequence parameter set.
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

/// How numbers become colours; the values that the standard gives where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour {
    /// `video_format`: 5 is unspecified.
    pub video_format: u32,
    /// 0..255 instead of 16..235.
    pub full_range: bool,
    /// `colour_primaries`: 2 is unspecified, here and below.
    pub primaries: u32,
    /// `transfer_characteristics`.
    pub transfer: u32,
    /// `matrix_coefficients`.
    pub matrix: u32,
}

const UNSPECIFIED: Colour =
    Colour { video_format: 5, full_range: false, primaries: 2, transfer: 2, matrix: 2 };

/// Shapes of a pixel that have a number of their own.
const PIXELS: [(u32, u32); 17] = [
    (0, 0),
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

impl Sps {
    /// Reads a set with its header byte; none if it makes no sense.
    pub(crate) fn read(sps: &[u8]) -> Option<Sps> {
        let mut bits = Bits::new(sps.get(1..)?);
        let mut read = base(&mut bits)?;
        if bits.take(1)? == 1 {
            usability(&mut bits, &mut read.format)?;
        }
        Some(read)
    }
}

/// Width and height in pixels from a sequence parameter set (with its header byte); none if it makes no sense.
pub(in crate::media::ts) fn picture_size(sps: &[u8]) -> Option<(u32, u32)> {
    Some(base(&mut Bits::new(sps.get(1..)?))?.format.size)
}

/// Reads what a file says about its pictures; none if the set makes no sense.
pub(crate) fn sequence(sps: &[u8]) -> Option<Sequence> {
    let &[_, profile, compatibility, level, ..] = sps else { return None };
    let mut bits = Bits::new(sps.get(1..)?);
    let mut format = base(&mut bits)?.format;
    if bits.take(1)? == 1 {
        // a set that ends early has no more to say; the decoder sees the same
        let _ = usability(&mut bits, &mut format);
    }
    let byte = |value: u32| u8::try_from(value).ok();
    let Colour { primaries, transfer, matrix, full_range, .. } = format.colour;
    let said = (primaries, transfer, matrix) != (2, 2, 2);
    Some(Sequence {
        profile,
        compatibility,
        level,
        chroma: byte(format.chroma)?,
        depth: (byte(format.depth.0)?, byte(format.depth.1)?),
        frames_only: format.frames_only,
        size: format.size,
        pixel: Some(format.pixel).filter(|pixel| pixel.0 > 0 && pixel.1 > 0),
        colours: if said {
            Some((byte(primaries)?, byte(transfer)?, byte(matrix)?, full_range))
        } else {
            None
        },
    })
}

/// The ids of a picture parameter set (with its header byte) and of the sequence parameter set it belongs to.
pub(crate) fn picture_set_ids(pps: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits::new(pps.get(1..)?);
    let ids = (bits.golomb()?, bits.golomb()?);
    (ids.0 < 256 && ids.1 < 32).then_some(ids)
}

/// All that stands before the flag for the optional part.
fn base(bits: &mut Bits<'_>) -> Option<Sps> {
    let profile = bits.take(8)?;
    bits.take(8)?;
    let level = bits.take(8)?;
    let id = bits.golomb().filter(|&id| id < 32)?;
    let (mut chroma, mut depth) = (1, (8, 8));
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128) {
        chroma = bits.golomb()?;
        if chroma == 3 {
            bits.take(1)?;
        }
        depth = (bits.golomb()?.checked_add(8)?, bits.golomb()?.checked_add(8)?);
        bits.take(1)?;
        if bits.take(1)? == 1 {
            skip_scaling(bits, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    bits.golomb()?;
    match bits.golomb()? {
        0 => drop(bits.golomb()?),
        1 => skip_order_cycle(bits)?,
        _ => {}
    }
    let refs = bits.golomb()?;
    bits.take(1)?;
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
    let format = Format {
        profile,
        level,
        chroma,
        depth,
        refs,
        frames_only: frames_only == 1,
        size,
        pixel: (0, 0),
        colour: UNSPECIFIED,
        reorder: None,
        buffered: None,
    };
    sane.then_some(Sps { id, format })
}

/// The optional part: how the pictures are meant to be shown, and what decoding them needs.
fn usability(bits: &mut Bits<'_>, format: &mut Format) -> Option<()> {
    if bits.take(1)? == 1 {
        format.pixel = match bits.take(8)? {
            255 => (bits.take(16)?, bits.take(16)?),
            number => PIXELS.get(usize::try_from(number).ok()?).copied().unwrap_or_default(),
        };
    }
    if bits.take(1)? == 1 {
        bits.take(1)?;
    }
    if bits.take(1)? == 1 {
        format.colour.video_format = bits.take(3)?;
        format.colour.full_range = bits.take(1)? == 1;
        if bits.take(1)? == 1 {
            format.colour.primaries = bits.take(8)?;
            format.colour.transfer = bits.take(8)?;
            format.colour.matrix = bits.take(8)?;
        }
    }
    if bits.take(1)? == 1 {
        bits.golomb()?;
        bits.golomb()?;
    }
    if bits.take(1)? == 1 {
        bits.skip(65)?;
    }
    let (nal, vcl) = (skip_buffering(bits)?, skip_buffering(bits)?);
    if nal || vcl {
        bits.take(1)?;
    }
    bits.take(1)?;
    if bits.take(1)? == 1 {
        bits.take(1)?;
        for _ in 0..4 {
            bits.golomb()?;
        }
        format.reorder = Some(bits.golomb()?);
        format.buffered = Some(bits.golomb()?);
    }
    Some(())
}

/// Whether the hints for constant bitrates were there.
fn skip_buffering(bits: &mut Bits<'_>) -> Option<bool> {
    if bits.take(1)? == 0 {
        return Some(false);
    }
    let count = bits.golomb().filter(|&count| count < 32)?;
    bits.take(8)?;
    for _ in 0..=count {
        bits.golomb()?;
        bits.golomb()?;
        bits.take(1)?;
    }
    bits.take(20)?;
    Some(true)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// x264: main, level 4, 1920x1080, b-pyramid, bt709.
    const SPS_MAIN_1080: &str = "674d4028eca03c0113f2e02d40404050000003001000000303c0f1831960";
    /// x264: high, interlaced, full range, id 3.
    const SPS_HIGH_ODD: &str = "6764001522cd941433602d90000003001000000303c1f1429960";

    fn bytes(hex: &str) -> Vec<u8> {
        let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        (0..hex.len()).step_by(2).map(pair).collect()
    }

    #[test]
    fn what_an_encoder_says_is_read() {
        let sps = Sps::read(&bytes(SPS_MAIN_1080)).expect("a good set");
        assert_eq!((sps.id, sps.format.profile, sps.format.level), (0, 77, 40));
        assert_eq!((sps.format.size, sps.format.chroma), ((1920, 1080), 1));
        assert_eq!(
            (sps.format.refs, sps.format.reorder, sps.format.buffered),
            (4, Some(2), Some(4))
        );
        let colour = sps.format.colour;
        assert_eq!((colour.primaries, colour.transfer, colour.matrix), (1, 1, 1));
        assert_eq!(picture_size(&bytes(SPS_MAIN_1080)), Some((1920, 1080)));
        let other = Sps::read(&bytes(SPS_HIGH_ODD)).expect("a good set");
        assert_eq!((other.id, other.format.profile), (3, 100));
        assert!(!other.format.frames_only && other.format.colour.full_range);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = Sps::read(&bytes);
            let _ = picture_set_ids(&bytes);
        }

        #[test]
        fn a_torn_set_is_no_set(length in 0usize..20) {
            proptest::prop_assert_eq!(Sps::read(&bytes(SPS_MAIN_1080)[..length]), None);
        }
    }
}
