//! What an egress request asks for, or why egress refuses it. Pure.

use livekit_protocol as proto;
use proto::{
    EncodingOptions, EncodingOptionsPreset as Preset, SegmentedFileOutput, SegmentedFileSuffix,
    audio_route::Match, egress_info, media_source::Video, output::Config,
    start_egress_request as v2, track_composite_egress_request as v1,
};

use super::{paths::Paths, twirp::Refusal};

/// Which picture to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Picture {
    /// This track, until it is gone.
    Track(String),
    /// Whatever screen this participant shares.
    ShareOf(String),
}

/// An accepted request.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) room: String,
    pub(super) picture: Picture,
    /// Audio tracks to record; empty with `with_audio`: silence until there is one.
    pub(super) sound: Vec<String>,
    pub(super) with_audio: bool,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frames_per_second: u32,
    pub(super) video_kbps: u32,
    pub(super) audio_kbps: u32,
    pub(super) audio_rate: u32,
    pub(super) segment_seconds: u32,
    pub(super) timestamp_names: bool,
    pub(super) manifest: bool,
    pub(super) paths: Paths,
    /// Addresses that get this egress's webhooks besides the server's own.
    pub(super) webhooks: Vec<String>,
    pub(super) echo: egress_info::Request,
}

impl Spec {
    pub(super) fn track_composite(
        request: proto::TrackCompositeEgressRequest,
        now: &str,
    ) -> Result<Spec, Refusal> {
        let others =
            request.file_outputs.len() + request.stream_outputs.len() + request.image_outputs.len();
        #[expect(deprecated, reason = "old clients still send the single output")]
        let old = match &request.output {
            Some(v1::Output::Segments(segments)) => Some(segments.clone()),
            Some(_) => return Err(unsupported("outputs other than segments")),
            None => None,
        };
        let output = only_segments(request.segment_outputs.iter().cloned().chain(old), others)?;
        if request.video_track_id.is_empty() {
            return Err(match request.audio_track_id.is_empty() {
                true => Refusal::invalid(
                    "request has missing or invalid field: audio_track_id or video_track_id",
                ),
                false => unsupported("audio without video"),
            });
        }
        let options = match request.options {
            Some(v1::Options::Advanced(options)) => options,
            Some(v1::Options::Preset(preset)) => of_preset(preset),
            None => EncodingOptions::default(),
        };
        let sound: Vec<String> =
            Some(request.audio_track_id.clone()).filter(|id| !id.is_empty()).into_iter().collect();
        Spec {
            room: request.room_name.clone(),
            picture: Picture::Track(request.video_track_id.clone()),
            with_audio: !sound.is_empty(),
            sound,
            webhooks: request.webhooks.iter().map(|hook| hook.url.clone()).collect(),
            ..Spec::empty(
                output.paths(&request.room_name, now)?,
                egress_info::Request::TrackComposite(request),
            )
        }
        .encoded(&options, &output)
    }

    pub(super) fn media(request: proto::StartEgressRequest, now: &str) -> Result<Spec, Refusal> {
        let segments = request.outputs.iter().filter_map(|output| match &output.config {
            Some(Config::Segments(segments)) => Some(segments.clone()),
            _ => None,
        });
        let segments: Vec<SegmentedFileOutput> = segments.collect();
        let others = request.outputs.len() - segments.len();
        let output = only_segments(segments.into_iter(), others)?;
        let Some(v2::Source::Media(source)) = &request.source else {
            return Err(unsupported("sources other than media"));
        };
        let picture = match &source.video {
            Some(Video::VideoTrackId(id)) => Picture::Track(id.clone()),
            Some(Video::ParticipantVideo(of)) if of.prefer_screen_share => {
                Picture::ShareOf(of.identity.clone())
            }
            _ => return Err(unsupported("media without a screen share")),
        };
        let sound = source.audio.iter().flat_map(|audio| &audio.routes).filter_map(|route| {
            match &route.r#match {
                Some(Match::TrackId(id)) => Some(id.clone()),
                _ => None,
            }
        });
        let options = match request.encoding {
            Some(v2::Encoding::Advanced(options)) => options,
            Some(v2::Encoding::Preset(preset)) => of_preset(preset),
            None => EncodingOptions::default(),
        };
        Spec {
            room: request.room_name.clone(),
            picture,
            sound: sound.collect(),
            with_audio: source.audio.is_some(),
            webhooks: request.webhooks.iter().map(|hook| hook.url.clone()).collect(),
            ..Spec::empty(
                output.paths(&request.room_name, now)?,
                egress_info::Request::Egress(request.clone()),
            )
        }
        .encoded(&options, &output)
    }

    fn empty(paths: Paths, echo: egress_info::Request) -> Spec {
        Spec {
            room: String::new(),
            picture: Picture::Track(String::new()),
            sound: Vec::new(),
            with_audio: false,
            width: 0,
            height: 0,
            frames_per_second: 0,
            video_kbps: 0,
            audio_kbps: 0,
            audio_rate: 0,
            segment_seconds: 0,
            timestamp_names: false,
            manifest: false,
            paths,
            webhooks: Vec::new(),
            echo,
        }
    }

    /// Fills in size, rates and lengths, with the defaults of the server.
    fn encoded(
        self,
        options: &EncodingOptions,
        output: &SegmentedFileOutput,
    ) -> Result<Spec, Refusal> {
        // VP8 is taken and H.264 recorded all the same, as a measured server did
        match proto::AudioCodec::try_from(options.audio_codec) {
            Ok(proto::AudioCodec::Opus) if self.with_audio => {
                return Err(incompatible("audio/opus"));
            }
            Ok(proto::AudioCodec::AcMp3) if self.with_audio => {
                return Err(incompatible("audio/mpeg"));
            }
            _ => {}
        }
        Ok(Spec {
            width: size(options.width, 1280, "width")?,
            height: size(options.height, 720, "height")?,
            frames_per_second: or_default(options.framerate, 30).min(120),
            video_kbps: or_default(options.video_bitrate, 3000),
            audio_kbps: or_default(options.audio_bitrate, 128),
            audio_rate: or_default(options.audio_frequency, 44_100),
            segment_seconds: if output.segment_duration == 0 { 4 } else { output.segment_duration },
            timestamp_names: output.filename_suffix == SegmentedFileSuffix::Timestamp as i32,
            manifest: !output.disable_manifest,
            ..self
        })
    }
}

trait OutputPaths {
    fn paths(&self, room: &str, now: &str) -> Result<Paths, Refusal>;
}

impl OutputPaths for SegmentedFileOutput {
    fn paths(&self, room: &str, now: &str) -> Result<Paths, Refusal> {
        Paths::of(self, room, now).map_err(|field| {
            Refusal::invalid(format!("request has missing or invalid field: {field}"))
        })
    }
}

fn only_segments(
    mut segments: impl Iterator<Item = SegmentedFileOutput>,
    others: usize,
) -> Result<SegmentedFileOutput, Refusal> {
    match (segments.next(), segments.next(), others) {
        (Some(output), None, 0) if output.output.is_none() => Ok(output),
        (Some(_), None, 0) => Err(unsupported("storage other than local")),
        (Some(_), Some(_), _) => Err(Refusal::invalid("cannot have multiple segments outputs")),
        (None, _, 0) => Err(Refusal::invalid("request has missing or invalid field: output")),
        _ => Err(unsupported("outputs other than segments")),
    }
}

fn size(asked: i32, default: u32, field: &str) -> Result<u32, Refusal> {
    match u32::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) if size >= 16 && size % 2 == 0 => Ok(size),
        _ => Err(Refusal::invalid(format!("request has missing or invalid field: {field}"))),
    }
}

fn or_default(asked: i32, default: u32) -> u32 {
    u32::try_from(asked).ok().filter(|value| *value > 0).unwrap_or(default)
}

fn incompatible(codec: &str) -> Refusal {
    Refusal::invalid(format!("format application/x-mpegurl incompatible with codec {codec}"))
}

/// What a real server does and this one does not; no code of ours may need it.
fn unsupported(what: &str) -> Refusal {
    Refusal::new("unimplemented", format!("the simulator does not record {what}"))
}

fn of_preset(preset: i32) -> EncodingOptions {
    let (width, height, framerate, video_bitrate) = match Preset::try_from(preset) {
        Ok(Preset::H264720p60) => (1280, 720, 60, 4500),
        Ok(Preset::H2641080p30) => (1920, 1080, 30, 4500),
        Ok(Preset::H2641080p60) => (1920, 1080, 60, 6000),
        Ok(Preset::PortraitH264720p30) => (720, 1280, 30, 3000),
        Ok(Preset::PortraitH264720p60) => (720, 1280, 60, 4500),
        Ok(Preset::PortraitH2641080p30) => (1080, 1920, 30, 4500),
        Ok(Preset::PortraitH2641080p60) => (1080, 1920, 60, 6000),
        _ => (1280, 720, 30, 3000),
    };
    EncodingOptions { width, height, framerate, video_bitrate, ..EncodingOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(options: EncodingOptions, audio: &str) -> Result<Spec, Refusal> {
        let output =
            SegmentedFileOutput { filename_prefix: "/o/u/seg".to_owned(), ..Default::default() };
        let request = proto::TrackCompositeEgressRequest {
            room_name: "r".to_owned(),
            video_track_id: "TR_v".to_owned(),
            audio_track_id: audio.to_owned(),
            segment_outputs: vec![output],
            options: Some(v1::Options::Advanced(options)),
            ..Default::default()
        };
        Spec::track_composite(request, "now")
    }

    #[test]
    fn opus_is_refused_only_when_there_is_audio() {
        let opus =
            EncodingOptions { audio_codec: proto::AudioCodec::Opus as i32, ..Default::default() };
        assert!(request(opus, "").is_ok());
        let refusal = request(opus, "TR_a").unwrap_err();
        assert_eq!(refusal.code, "invalid_argument");
        assert_eq!(
            refusal.msg,
            "twirp error unknown: format application/x-mpegurl incompatible with codec audio/opus"
        );
    }

    #[test]
    fn odd_and_tiny_sizes_are_refused_and_zero_means_the_default() {
        let sized = |width, height| EncodingOptions { width, height, ..Default::default() };
        for wrong in [sized(801, 600), sized(800, 601), sized(14, 600), sized(-2, 600)] {
            assert_eq!(request(wrong, "").unwrap_err().code, "invalid_argument");
        }
        let spec = request(sized(0, 0), "").unwrap();
        assert_eq!(
            (spec.width, spec.height, spec.frames_per_second, spec.segment_seconds),
            (1280, 720, 30, 4)
        );
    }
}
