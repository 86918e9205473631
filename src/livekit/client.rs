//! The real client: one connection pool, a deadline on every call, LiveKit's errors in our words.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use livekit_api::access_token::{AccessToken, VideoGrants};
use livekit_api::services::{
    LiveKitApi, ServerError, ServerErrorCode, ServiceError,
    egress::{
        EgressListFilter, EgressListOptions, EgressOutput, TrackCompositeOptions,
        encoding::EncodingOptions,
    },
};
use livekit_protocol as proto;
use secrecy::{ExposeSecret, SecretString};

use super::{EgressFact, EgressOrder, LiveKit, Room, Stopped, convert};
use crate::{
    config,
    domain::{
        id::{EgressId, RoomName},
        playlist,
        share::Participant,
    },
    error::{Code, Error, Result},
};

/// Deadline of every call but StartEgress.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// LiveKit over HTTP.
pub struct Client {
    url: String,
    api_key: String,
    api_secret: SecretString,
    probe: reqwest::Client,
    api: LiveKitApi,
    /// The same server with StartEgress's own long deadline.
    start_api: LiveKitApi,
    start_timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the configured server; connects when first asked.
    pub fn new(settings: &config::Livekit) -> Client {
        let connect = |timeout| {
            LiveKitApi::with_api_key(
                &settings.url,
                &settings.api_key,
                settings.api_secret.expose_secret(),
            )
            // Failover would send a start more than once; it only acts for hosts of LiveKit Cloud.
            .with_failover(false)
            .with_request_timeout(timeout)
        };
        Client {
            url: settings.url.clone(),
            api_key: settings.api_key.clone(),
            api_secret: settings.api_secret.clone(),
            probe: reqwest::Client::new(),
            api: connect(CALL_TIMEOUT),
            start_api: connect(settings.start_timeout),
            start_timeout: settings.start_timeout,
        }
    }
}

impl Client {
    /// Whether LiveKit refuses our key. A server answers an unknown key or a bad signature with 401 in plain text,
    /// which the client library reports as an unreadable answer without its status; so the status is asked for.
    async fn is_rejected(&self, error: &ServiceError) -> bool {
        let ServiceError::Twirp(ServerError::Request(cause)) = error else { return false };
        if !cause.is_decode() {
            return false;
        }
        let grants = VideoGrants { room_list: true, ..Default::default() };
        let token = AccessToken::with_api_key(&self.api_key, self.api_secret.expose_secret())
            .with_grants(grants)
            .to_jwt();
        let (Ok(token), Some(address)) = (token, probe_address(&self.url)) else { return false };
        let request = self
            .probe
            .post(address)
            .bearer_auth(token)
            .timeout(CALL_TIMEOUT)
            .header("content-type", "application/json")
            .body("{}");
        match request.send().await {
            Ok(answer) => answer.status() == http::StatusCode::UNAUTHORIZED,
            Err(_) => false,
        }
    }

    /// What a failed call means for whoever needed it.
    async fn call_failed(&self, doing: &'static str, error: ServiceError) -> Error {
        if self.is_rejected(&error).await {
            return credentials().because(error);
        }
        call_error(doing, error)
    }
}

fn probe_address(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "ws" => "http",
        "wss" => "https",
        other => other,
    };
    let host = rest.split('/').next()?;
    Some(format!("{scheme}://{host}/twirp/livekit.RoomService/ListRooms"))
}

#[async_trait]
impl LiveKit for Client {
    async fn start_egress(&self, order: &EgressOrder) -> Result<EgressFact> {
        let call = self.start_api.egress().start_track_composite_egress(
            order.room.as_str(),
            vec![EgressOutput::Segments(segments_output(order))],
            TrackCompositeOptions {
                encoding: encoding(order),
                audio_track_id: order.audio.as_ref().map(ToString::to_string).unwrap_or_default(),
                video_track_id: order.video.to_string(),
            },
        );
        // The client's own deadline counts per attempt; this one is the whole call's.
        match tokio::time::timeout(self.start_timeout, call).await {
            Ok(Ok(info)) => Ok(convert::egress(&info)),
            Ok(Err(error)) if self.is_rejected(&error).await => Err(credentials().because(error)),
            Ok(Err(error)) => Err(start_error(error)),
            Err(_) => Err(start_timeout()),
        }
    }

    async fn stop_egress(&self, egress: &EgressId) -> Result<Stopped> {
        match bounded(self.api.egress().stop_egress(egress.as_str())).await {
            Ok(_) => Ok(Stopped::Ending),
            Err(error) => match twirp_code(&error) {
                // Over already, or swept from LiveKit's memory (24 h after its end).
                Some(ServerErrorCode::FAILED_PRECONDITION | ServerErrorCode::NOT_FOUND) => {
                    Ok(Stopped::AlreadyOver)
                }
                _ => Err(self.call_failed("stopping an egress", error).await),
            },
        }
    }

    async fn find_egress(&self, egress: &EgressId) -> Result<Option<EgressFact>> {
        let options = EgressListOptions {
            filter: EgressListFilter::Egress(egress.to_string()),
            ..Default::default()
        };
        match bounded(self.api.egress().list_egress(options)).await {
            Ok(items) => {
                Ok(items.iter().find(|info| info.egress_id == egress.as_str()).map(convert::egress))
            }
            Err(error) if twirp_code(&error) == Some(ServerErrorCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(self.call_failed("asking for an egress", error).await),
        }
    }

    async fn list_active_egress(&self, room: Option<&RoomName>) -> Result<Vec<EgressFact>> {
        let filter =
            room.map_or(EgressListFilter::All, |room| EgressListFilter::Room(room.to_string()));
        let options = EgressListOptions { filter, active: true, ..Default::default() };
        match bounded(self.api.egress().list_egress(options)).await {
            Ok(items) => Ok(items.iter().map(convert::egress).collect()),
            Err(error) if twirp_code(&error) == Some(ServerErrorCode::NOT_FOUND) => Ok(Vec::new()),
            Err(error) => Err(self.call_failed("listing egresses", error).await),
        }
    }

    async fn list_participants(&self, room: &RoomName) -> Result<Option<Vec<Participant>>> {
        match bounded(self.api.room().list_participants(room.as_str())).await {
            Ok(items) => Ok(Some(items.iter().filter_map(convert::participant).collect())),
            Err(error) if twirp_code(&error) == Some(ServerErrorCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(self.call_failed("listing a room's participants", error).await),
        }
    }

    async fn list_rooms(&self) -> Result<Vec<Room>> {
        match bounded(self.api.room().list_rooms(Vec::new())).await {
            Ok(rooms) => Ok(rooms
                .into_iter()
                .map(|room| Room { name: RoomName::new(room.name), metadata: room.metadata })
                .collect()),
            Err(error) => Err(self.call_failed("listing rooms", error).await),
        }
    }

    async fn find_room_metadata(&self, room: &RoomName) -> Result<Option<String>> {
        match bounded(self.api.room().list_rooms(vec![room.to_string()])).await {
            Ok(rooms) => Ok(rooms
                .into_iter()
                .find(|found| found.name == room.as_str())
                .map(|found| found.metadata)),
            Err(error) => Err(self.call_failed("asking for a room", error).await),
        }
    }
}

async fn bounded<T>(
    call: impl Future<Output = Result<T, ServiceError>>,
) -> Result<T, ServiceError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ServiceError::Twirp(ServerError::Twirp(ServerErrorCode {
            code: ServerErrorCode::DEADLINE_EXCEEDED.to_owned(),
            msg: "no answer within our deadline".to_owned(),
            meta: Default::default(),
        }))),
    }
}

/// Where segments and playlists go. The prefix and both playlists share one directory of ours, named by an absolute
/// path without templates: anything else is nested, sanitised or evaluated twice by egress.
fn segments_output(order: &EgressOrder) -> proto::SegmentedFileOutput {
    proto::SegmentedFileOutput {
        filename_prefix: format!("{}/{}", order.directory, playlist::SEGMENT_PREFIX),
        playlist_name: playlist::EVENT_PLAYLIST.to_owned(),
        live_playlist_name: playlist::LIVE_PLAYLIST.to_owned(),
        segment_duration: order.segment_seconds,
        // written once at the end and holds no times
        disable_manifest: true,
        ..Default::default()
    }
}

fn encoding(order: &EgressOrder) -> EncodingOptions {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    EncodingOptions {
        width: number(order.width),
        height: number(order.height),
        framerate: number(order.frame_rate),
        // The crate's default is Opus, which HLS output refuses.
        audio_codec: proto::AudioCodec::Aac,
        audio_bitrate: number(order.audio_kbps),
        audio_frequency: 48_000,
        video_codec: proto::VideoCodec::H264Main,
        video_bitrate: number(order.video_kbps),
        ..Default::default()
    }
}

fn twirp_code(error: &ServiceError) -> Option<&str> {
    match error {
        ServiceError::Twirp(ServerError::Twirp(error)) => Some(error.code.as_str()),
        _ => None,
    }
}

fn unreachable() -> Error {
    Error::new(Code::LivekitUnreachable, "LiveKit cannot be reached.")
        .retry_after(Duration::from_secs(5))
        .retryable()
}

fn start_timeout() -> Error {
    Error::new(
        Code::EgressStartTimeout,
        "LiveKit did not say in time whether the recording started; it was not kept.",
    )
}

fn credentials() -> Error {
    Error::new(Code::LivekitRejectedCredentials, "LiveKit rejected this service's API key.")
}

/// What a failed StartEgress means. Refused connections started nothing; time-outs and unreadable answers may have.
fn start_error(error: ServiceError) -> Error {
    let ours = match &error {
        ServiceError::Twirp(ServerError::Request(cause)) if cause.is_connect() => unreachable(),
        ServiceError::Twirp(ServerError::Request(_) | ServerError::Prost(_)) => start_timeout(),
        _ => match twirp_code(&error) {
            Some(ServerErrorCode::UNAUTHENTICATED | ServerErrorCode::PERMISSION_DENIED) => {
                credentials()
            }
            Some(ServerErrorCode::DEADLINE_EXCEEDED | ServerErrorCode::CANCELED) => start_timeout(),
            Some(ServerErrorCode::NOT_FOUND) => {
                Error::new(Code::ScreenShareNotFound, "LiveKit does not know that room (any more).")
            }
            Some(ServerErrorCode::BAD_ROUTE | ServerErrorCode::UNIMPLEMENTED) => Error::new(
                Code::EgressUnavailable,
                "This LiveKit server does not know the egress call; it needs at least 1.2.0.",
            )
            .retry_after(Duration::from_secs(60)),
            _ => Error::new(Code::EgressUnavailable, "LiveKit has no egress worker to give.")
                .retry_after(Duration::from_secs(5))
                .retryable(),
        },
    };
    ours.because(error)
}

fn call_error(doing: &'static str, error: ServiceError) -> Error {
    let ours = match twirp_code(&error) {
        Some(ServerErrorCode::UNAUTHENTICATED | ServerErrorCode::PERMISSION_DENIED) => {
            credentials()
        }
        _ => unreachable(),
    };
    tracing::debug!(doing, error = %error, "LiveKit call failed");
    ours.because(error)
}
