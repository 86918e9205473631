//! How the encoder is asked for pictures that a decoder takes as a continuation of the source's. Pure.

use super::Unfit;
use crate::media::{
    TICKS,
    ts::h264::{Colour, Format},
};

const PROFILES: [(u32, &str); 3] = [(66, "baseline"), (77, "main"), (100, "high")];
const VIDEO_FORMATS: [&str; 6] = ["component", "pal", "ntsc", "secam", "mac", "undef"];
/// Numbers of the standard, and the encoder's names for them.
const PRIMARIES: [(u32, &str); 5] =
    [(1, "bt709"), (5, "bt470bg"), (6, "smpte170m"), (7, "smpte240m"), (9, "bt2020")];
const TRANSFERS: [(u32, &str); 6] = [
    (1, "bt709"),
    (5, "bt470bg"),
    (6, "smpte170m"),
    (7, "smpte240m"),
    (13, "iec61966-2-1"),
    (14, "bt2020-10"),
];
const MATRICES: [(u32, &str); 5] =
    [(1, "bt709"), (5, "bt470bg"), (6, "smpte170m"), (7, "smpte240m"), (9, "bt2020nc")];
const UNSPECIFIED: u32 = 2;
/// Level times ten, most kilobits a second, most kilobits of the decoder's buffer (H.264, table A-1, main profile).
const LEVELS: [(u32, u64, u64); 16] = [
    (10, 64, 175),
    (11, 192, 500),
    (12, 384, 1_000),
    (13, 768, 2_000),
    (20, 2_000, 2_000),
    (21, 4_000, 4_000),
    (22, 4_000, 4_000),
    (30, 10_000, 10_000),
    (31, 14_000, 14_000),
    (32, 20_000, 20_000),
    (40, 20_000, 25_000),
    (41, 50_000, 62_500),
    (42, 50_000, 62_500),
    (50, 135_000, 135_000),
    (51, 240_000, 240_000),
    (52, 240_000, 240_000),
];

/// What the encoder is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// `-profile:v`
    pub profile: &'static str,
    /// `-level`
    pub level: String,
    /// `-x264-params`
    pub params: String,
}

/// How large the encoded pictures may become together: a rate that is kept to, with the decoder's buffer that it is
/// meant for, both in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cap {
    /// `-maxrate`
    pub rate: u64,
    /// `-bufsize`
    pub buffer: u64,
}

impl Cap {
    /// The cap under which `ticks` of pictures take at most `bytes`; none where the level does not allow that much
    /// anyhow.
    pub fn within(bytes: u64, ticks: u64, level: u32) -> Option<Cap> {
        let (_, rate_most, buffer_most) = LEVELS.into_iter().find(|(known, ..)| *known == level)?;
        let bits = bytes.saturating_mul(8).saturating_mul(SHARE) / 100;
        let ticks_a_second = TICKS.unsigned_abs();
        let second = bits.saturating_mul(ticks_a_second) / ticks.max(1);
        let buffer = (bits / 3).min(second).min(buffer_most * 1000);
        let rate = bits.saturating_sub(buffer).saturating_mul(ticks_a_second) / ticks.max(1);
        // the encoder counts in kilobits
        (rate >= 1000 && rate <= rate_most * 1000).then_some(Cap { rate, buffer })
    }
}

/// Percent of the room that is planned to be filled.
const SHARE: u64 = 92;

/// Settings whose result has the same format, under the parameter set id `id`.
///
/// # Errors
/// [`Unfit`] for formats that cannot be asked for.
pub(super) fn settings(format: &Format, id: u32) -> Result<Settings, Unfit> {
    if !format.frames_only {
        return Err(Unfit::Interlaced);
    }
    let profile = name_of(&PROFILES, format.profile).ok_or(Unfit::Profile)?;
    if format.chroma != 1 || format.depth != (8, 8) {
        return Err(Unfit::Profile);
    }
    let reorder = format.reorder.filter(|_| format.buffered.is_some());
    let reorder = reorder.ok_or(Unfit::UnknownOrder)?;
    // stitchable: the encoder's own word for pieces that are joined; every piece is one closed group
    let mut params: Vec<String> = [
        format!("sps-id={id}"),
        "stitchable=1:keyint=infinite:min-keyint=1:scenecut=0:open-gop=0:aud=0".to_owned(),
        format!("bframes={}", if reorder == 0 { 0 } else { 3 }),
        format!("b-pyramid={}", if reorder > 1 { "normal" } else { "none" }),
    ]
    .into();
    if (format.refs, reorder) != (4, 2) {
        params.push(format!("ref={}", format.refs.clamp(1, 16)));
    }
    params.extend(colours(format.colour)?);
    let level = format!("{}.{}", format.level / 10, format.level % 10);
    Ok(Settings { profile, level, params: params.join(":") })
}

fn colours(colour: Colour) -> Result<Vec<String>, Unfit> {
    let at = usize::try_from(colour.video_format).unwrap_or(usize::MAX);
    let format = VIDEO_FORMATS.get(at).ok_or(Unfit::Colour)?;
    let mut params = vec![format!("videoformat={format}")];
    if colour.full_range {
        params.push("fullrange=on".to_owned());
    }
    for (option, name, number) in [
        ("colorprim", name_of(&PRIMARIES, colour.primaries), colour.primaries),
        ("transfer", name_of(&TRANSFERS, colour.transfer), colour.transfer),
        ("colormatrix", name_of(&MATRICES, colour.matrix), colour.matrix),
    ] {
        if number != UNSPECIFIED {
            params.push(format!("{option}={}", name.ok_or(Unfit::Colour)?));
        }
    }
    Ok(params)
}

fn name_of(names: &[(u32, &'static str)], number: u32) -> Option<&'static str> {
    names.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> Format {
        Format {
            profile: 77,
            level: 31,
            chroma: 1,
            depth: (8, 8),
            refs: 4,
            frames_only: true,
            size: (1280, 720),
            pixel: (1, 1),
            colour: Colour {
                video_format: 5,
                full_range: false,
                primaries: 1,
                transfer: 13,
                matrix: 6,
            },
            reorder: Some(2),
            buffered: Some(4),
        }
    }

    #[test]
    fn the_source_is_described_to_the_encoder() {
        let asked = settings(&format(), 3).expect("fits");
        assert_eq!((asked.profile, asked.level.as_str()), ("main", "3.1"));
        for part in [
            "sps-id=3:",
            "bframes=3:b-pyramid=normal:videoformat=undef",
            "colorprim=bt709:transfer=iec61966-2-1:colormatrix=smpte170m",
        ] {
            assert!(asked.params.contains(part), "{}", asked.params);
        }
        assert!(!asked.params.contains(":ref="), "the encoder's own gives four");
        let plain = Format { refs: 1, reorder: Some(0), ..format() };
        let asked = settings(&plain, 1).expect("fits").params;
        assert!(asked.contains("bframes=0:b-pyramid=none:ref=1"), "{asked}");
    }

    #[test]
    fn a_cap_fills_the_room_and_no_more() {
        let second = TICKS.unsigned_abs();
        let cap = Cap::within(14_000_000, 18 * second, 40).expect("a cap");
        let most = cap.rate * 18 + cap.buffer;
        assert!(most <= 14_000_000 * 8 && most > 14_000_000 * 7, "{cap:?}");
        // a moment may take what there is
        assert_eq!(Cap::within(14_000_000, second / 10, 40), None);
        assert_eq!(Cap::within(0, second, 40), None);
        assert_eq!(Cap::within(1_000, second, 99), None);
    }

    #[test]
    fn what_cannot_be_asked_for_is_named() {
        let colour = format().colour;
        let odd = |colour| settings(&Format { colour, ..format() }, 1);
        assert_eq!(odd(Colour { primaries: 22, ..colour }), Err(Unfit::Colour));
        assert_eq!(odd(Colour { transfer: 16, ..colour }), Err(Unfit::Colour));
        assert_eq!(odd(Colour { matrix: 0, ..colour }), Err(Unfit::Colour));
        assert_eq!(odd(Colour { video_format: 6, ..colour }), Err(Unfit::Colour));
        let of = |format| settings(&format, 1).expect_err("unfit");
        assert_eq!(of(Format { frames_only: false, ..format() }), Unfit::Interlaced);
        assert_eq!(of(Format { profile: 122, ..format() }), Unfit::Profile);
        assert_eq!(of(Format { chroma: 2, ..format() }), Unfit::Profile);
        assert_eq!(of(Format { depth: (10, 8), ..format() }), Unfit::Profile);
        assert_eq!(of(Format { reorder: None, ..format() }), Unfit::UnknownOrder);
    }
}
