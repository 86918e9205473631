//! How large, fast and dense a recording is made: the quality asked for against what the share really is.

use serde::{Deserialize, Serialize};

/// The longest side we ask of an encoder.
pub const MAX_SIDE: u32 = 4096;
/// The most pixels: what H.264 level 5.2 decoders take.
const MAX_PIXELS: u64 = 4096 * 2304;
/// Egress refuses anything smaller.
const MIN_SIDE: u32 = 16;
/// Egress records stereo AAC; speech and games both sound right at this.
pub const AUDIO_KBIT: u32 = 128;
/// Frames per second asked for.
pub const FRAME_RATE: u32 = 30;

/// What a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Quality {
    /// Within 1280 x 720.
    #[serde(rename = "720p")]
    P720,
    /// Within 1920 x 1080.
    #[default]
    #[serde(rename = "1080p")]
    P1080,
    /// Within 2560 x 1440.
    #[serde(rename = "1440p")]
    P1440,
    /// As it is shared.
    #[serde(rename = "source")]
    Source,
}

impl Quality {
    /// All of them.
    pub const ALL: &'static [Quality] =
        &[Quality::P720, Quality::P1080, Quality::P1440, Quality::Source];

    /// The name in the API and in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Quality::P720 => "720p",
            Quality::P1080 => "1080p",
            Quality::P1440 => "1440p",
            Quality::Source => "source",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Quality> {
        Quality::ALL.iter().copied().find(|quality| quality.as_str() == name)
    }

    /// Long and short side of the box the picture must fit into.
    fn bounds(self) -> (u32, u32) {
        match self {
            Quality::P720 => (1280, 720),
            Quality::P1080 => (1920, 1080),
            Quality::P1440 => (2560, 1440),
            Quality::Source => (MAX_SIDE, MAX_SIDE),
        }
    }
}

/// What we ask egress to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Even, 16 or more.
    pub width: u32,
    /// Even, 16 or more.
    pub height: u32,
    /// Frames per second.
    pub frame_rate: u32,
    /// kbit/s.
    pub video_kbit: u32,
    /// kbit/s.
    pub audio_kbit: u32,
}

/// The encoding for a share of this size. LiveKit may report 0 (not known yet): then the quality's own box counts
/// (1920 x 1080 for `source`). Aspect is kept to the even pixel; never larger than the source, but for the least size.
pub fn encoding(quality: Quality, source_width: u32, source_height: u32) -> Encoding {
    let (width, height) = if source_width == 0 || source_height == 0 {
        if quality == Quality::Source { (1920, 1080) } else { quality.bounds() }
    } else {
        fit(quality, source_width, source_height)
    };
    Encoding {
        width,
        height,
        frame_rate: FRAME_RATE,
        video_kbit: video_kbit(width, height),
        audio_kbit: AUDIO_KBIT,
    }
}

fn fit(quality: Quality, width: u32, height: u32) -> (u32, u32) {
    let (long, short) = quality.bounds();
    let (box_width, box_height) = if width >= height { (long, short) } else { (short, long) };
    let (w, h) = (f64::from(width), f64::from(height));
    let by_pixels = (MAX_PIXELS as f64 / (w * h)).sqrt();
    let scale = (f64::from(box_width) / w).min(f64::from(box_height) / h).min(by_pixels).min(1.0);
    (even(w * scale, width.min(box_width)), even(h * scale, height.min(box_height)))
}

/// The nearest even number not above `most`, at least the smallest size there is.
fn even(length: f64, most: u32) -> u32 {
    let nearest = (length / 2.0).round() as u32 * 2;
    nearest.min(most / 2 * 2).max(MIN_SIDE)
}

/// By pixels, for text and moving pictures at 30 frames per second; between LiveKit's own presets and what keeps
/// small text legible.
fn video_kbit(width: u32, height: u32) -> u32 {
    match u64::from(width) * u64::from(height) {
        0..=230_400 => 1_000,           // 640 x 360
        230_401..=518_400 => 2_000,     // 960 x 540
        518_401..=921_600 => 3_000,     // 1280 x 720
        921_601..=2_073_600 => 6_000,   // 1920 x 1080
        2_073_601..=3_686_400 => 9_000, // 2560 x 1440
        3_686_401..=5_529_600 => 12_000,
        _ => 16_000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(quality: Quality, width: u32, height: u32) -> (u32, u32) {
        let encoding = encoding(quality, width, height);
        (encoding.width, encoding.height)
    }

    #[test]
    fn sizes_fit_their_box_and_keep_their_shape() {
        assert_eq!(size(Quality::P1080, 1920, 1080), (1920, 1080));
        assert_eq!(size(Quality::P720, 1920, 1080), (1280, 720));
        assert_eq!(size(Quality::P1080, 3440, 1440), (1920, 804));
        assert_eq!(size(Quality::P1080, 1080, 1920), (1080, 1920));
        assert_eq!(size(Quality::P1440, 801, 601), (800, 600));
        assert_eq!(size(Quality::Source, 2561, 1441), (2560, 1440));
        assert_eq!(size(Quality::Source, 7680, 4320), (4096, 2304));
        assert_eq!(size(Quality::P1080, 1000, 3), (1000, 16));
    }

    #[test]
    fn an_unknown_size_is_the_qualitys_own() {
        assert_eq!(size(Quality::P720, 0, 0), (1280, 720));
        assert_eq!(size(Quality::Source, 0, 500), (1920, 1080));
    }

    #[test]
    fn names_are_those_of_the_api() {
        for quality in Quality::ALL {
            assert_eq!(serde_json::json!(quality), quality.as_str());
            assert_eq!(Quality::from_name(quality.as_str()), Some(*quality));
        }
        assert_eq!(Quality::default(), Quality::P1080);
    }

    proptest! {
        #[test]
        fn whatever_is_shared_an_encoder_takes_it(width in any::<u32>(), height in any::<u32>(), small in any::<bool>(), which in 0usize..4) {
            let (width, height) = if small { (width % 5000, height % 5000) } else { (width, height) };
            let encoding = encoding(Quality::ALL[which], width, height);
            for (ours, theirs) in [(encoding.width, width), (encoding.height, height)] {
                prop_assert!(ours % 2 == 0 && (16..=MAX_SIDE).contains(&ours));
                prop_assert!(theirs < 16 || ours <= theirs || width == 0 || height == 0);
            }
            prop_assert!(encoding.video_kbit >= 1000 && encoding.video_kbit <= 16_000);
            if width > 100 && height > 100 && encoding.width > 100 && encoding.height > 100 {
                let (was, is) = (f64::from(width) / f64::from(height), f64::from(encoding.width) / f64::from(encoding.height));
                prop_assert!((was / is - 1.0).abs() < 0.03, "{was} {is}");
            }
        }
    }
}
