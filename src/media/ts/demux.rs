//! From packets to access units and sound frames.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    AudioFormat, WRAP,
    adts::frame_at,
    h264::{self, AUD, IDR, PPS, SPS},
    packet::{Counters, Damage, Packet, Packets, Program},
};
use crate::media::TICKS;

/// One picture as it was stored, in decode order.
#[derive(Debug, Clone)]
pub struct AccessUnit {
    /// When it is shown: 33-bit ticks as stored.
    pub pts_raw: i64,
    /// When it is decoded: 33-bit ticks as stored.
    pub dts_raw: i64,
    /// An IDR picture: decoding can begin here.
    pub key: bool,
    /// Of its first packet, in bytes from the start of the segment.
    pub offset: usize,
    /// Annex B bytes without access unit delimiter. A key picture always carries its parameter sets, also where the
    /// source gave them only once.
    pub data: Bytes,
    /// The parameter sets in force.
    pub sets: Arc<ParameterSets>,
}

/// Sequence and picture parameter sets, and what follows from them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    units: Vec<Vec<u8>>,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// First half of BLAKE3 over the sets, as a name for "the same sets".
    pub hash: u64,
}

impl ParameterSets {
    /// The sets, each with its header byte and without start code.
    pub fn units(&self) -> &[Vec<u8>] {
        &self.units
    }

    /// Sets of which only the units matter.
    #[cfg(test)]
    pub(crate) fn of(units: Vec<Vec<u8>>) -> ParameterSets {
        ParameterSets { units, ..ParameterSets::default() }
    }
}

/// One frame of sound, with its ADTS header.
#[derive(Debug, Clone)]
pub struct AudioFrame {
    /// 33-bit ticks; derived for all but the first frame of a PES.
    pub pts_raw: i64,
    /// Samples it stands for.
    pub samples: i64,
    /// Rate and channels.
    pub format: AudioFormat,
    /// Header and block(s).
    pub data: Vec<u8>,
}

/// All of a segment.
#[derive(Debug, Default)]
pub struct Demuxed {
    /// Pictures in decode order.
    pub video: Vec<AccessUnit>,
    /// Sound in order.
    pub audio: Vec<AudioFrame>,
}

/// Takes a whole segment apart.
///
/// # Errors
/// Every structural damage there is; a result that is `Ok` holds at least one picture, the first of them a key one.
pub fn demux(bytes: &[u8]) -> Result<Demuxed, Damage> {
    let mut demuxer = Demuxer::new();
    demuxer.take(bytes)?;
    demuxer.finish()
}

/// Takes a segment apart piece by piece.
pub struct Demuxer {
    /// Bytes taken.
    taken: usize,
    counters: Counters,
    program: Program,
    video: Assembler,
    audio: Assembler,
    out: Builder,
}

impl Demuxer {
    /// One that has taken nothing.
    pub fn new() -> Demuxer {
        Demuxer {
            taken: 0,
            counters: Counters::new(),
            program: Program::default(),
            video: Assembler::default(),
            audio: Assembler::default(),
            out: Builder::default(),
        }
    }

    /// The next piece: whole packets ([`PACKET`] bytes each), but for the last one.
    ///
    /// # Errors
    /// As [`demux`]; what is called corrupt here, seen as a whole may be truncated.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        let Demuxer { program, video, audio, out, .. } = self;
        let mut packets = Packets::new(bytes, self.taken, &mut self.counters);
        while let Some(packet) = packets.next()? {
            if program.take_table(&packet)? {
                continue;
            }
            if Some(packet.pid) == program.video {
                if let Some(pes) = video.push(&packet)? {
                    out.picture(pes)?;
                }
                video.take_run(&mut packets, packet.pid);
            } else if Some(packet.pid) == program.audio
                && let Some(pes) = audio.push(&packet)?
            {
                out.sound(&pes)?;
                audio.spare = pes.bytes;
            }
        }
        self.taken += bytes.len();
        Ok(())
    }

    /// What there was.
    ///
    /// # Errors
    /// As [`demux`].
    pub fn finish(mut self) -> Result<Demuxed, Damage> {
        if self.taken == 0 {
            return Err(Damage::Empty);
        }
        if !self.program.seen_pmt {
            return Err(Damage::corrupt("the program tables are missing"));
        }
        if let Some(pes) = self.video.finish()? {
            self.out.picture(pes)?;
        }
        if let Some(pes) = self.audio.finish()? {
            self.out.sound(&pes)?;
        }
        self.out.finish()
    }
}

/// A PES packet: what carries one picture, or some frames of sound.
struct Pes {
    offset: usize,
    pts: Option<i64>,
    dts: Option<i64>,
    bytes: Vec<u8>,
    /// Where in `bytes` the payload begins.
    begin: usize,
}

impl Pes {
    fn payload(&self) -> &[u8] {
        self.bytes.get(self.begin..).unwrap_or_default()
    }
}

#[derive(Default)]
struct Assembler {
    open: Option<(usize, Vec<u8>)>,
    /// Used before, for the next one.
    spare: Vec<u8>,
}

/// Room for a PES, so that it grows in place.
const USUAL_PES: usize = 32 * 1024;

impl Assembler {
    fn push(&mut self, packet: &Packet<'_>) -> Result<Option<Pes>, Damage> {
        if !packet.start {
            let (_, bytes) =
                self.open.as_mut().ok_or(Damage::corrupt("it starts inside a picture"))?;
            bytes.extend_from_slice(packet.payload);
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.reserve(USUAL_PES);
        bytes.extend_from_slice(packet.payload);
        let before = self.open.replace((packet.offset, bytes));
        before.map(|(offset, bytes)| pes(offset, bytes, false)).transpose()
    }

    /// What follows of the same PES, as far as there is nothing to look at: pictures are hundreds of packets long.
    fn take_run(&mut self, packets: &mut Packets<'_>, pid: u16) {
        if let Some((_, bytes)) = &mut self.open {
            packets.take_run(pid, bytes);
        }
    }

    fn finish(self) -> Result<Option<Pes>, Damage> {
        self.open.map(|(offset, bytes)| pes(offset, bytes, true)).transpose()
    }
}

fn pes(offset: usize, mut bytes: Vec<u8>, last: bool) -> Result<Pes, Damage> {
    let short = if last { Damage::Truncated } else { Damage::corrupt("a PES is too short") };
    let &[0, 0, 1, _, length_high, length_low, _, flags, header, ..] = bytes.as_slice() else {
        return Err(if bytes.len() < 9 { short } else { Damage::corrupt("a PES has no header") });
    };
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if length > 0 {
        if bytes.len() < 6 + length {
            return Err(short);
        }
        bytes.truncate(6 + length);
    }
    let pts = (flags & 0x80 != 0).then(|| stamp(&bytes, 9)).flatten();
    let dts = (flags & 0xc0 == 0xc0).then(|| stamp(&bytes, 14)).flatten();
    let begin = 9 + usize::from(header);
    if begin > bytes.len() {
        return Err(short);
    }
    Ok(Pes { offset, pts, dts, bytes, begin })
}

fn stamp(bytes: &[u8], at: usize) -> Option<i64> {
    let &[a, b, c, d, e] = bytes.get(at..at + 5)? else { return None };
    Some(
        i64::from(a >> 1 & 7) << 30
            | i64::from(b) << 22
            | i64::from(c >> 1) << 15
            | i64::from(d) << 7
            | i64::from(e >> 1),
    )
}

#[derive(Default)]
struct Builder {
    out: Demuxed,
    sets: Arc<ParameterSets>,
    /// A sound frame whose end is in the next PES, and its time.
    rest: Vec<u8>,
    rest_pts: i64,
}

impl Builder {
    fn picture(&mut self, pes: Pes) -> Result<(), Damage> {
        let payload = pes.payload();
        let Some(pts) = pes.pts else {
            // a picture may be spread over several PES: only its first one has a time
            let unit = self.out.video.last_mut();
            let unit = unit.ok_or(Damage::corrupt("the first picture has no time"))?;
            unit.data = [&unit.data, payload].concat().into();
            return Ok(());
        };
        let head = h264::head(payload);
        let key = head.slice == Some(IDR);
        if self.out.video.is_empty() && !key {
            return Err(Damage::corrupt("it does not start with a key frame"));
        }
        let is_set = |kind: u8| kind == SPS || kind == PPS;
        let own: Vec<_> = head.units.iter().filter(|unit| is_set(unit.kind)).collect();
        let has_both = [SPS, PPS].iter().all(|kind| own.iter().any(|unit| unit.kind == *kind));
        if has_both {
            let units: Vec<_> = own.iter().map(|unit| unit.bytes.to_vec()).collect();
            if self.sets.units != units {
                self.sets = Arc::new(parameter_sets(units)?);
            }
        }
        if self.sets.units.is_empty() {
            return Err(Damage::corrupt("parameter sets are missing"));
        }
        let begin = match head.units.first() {
            Some(unit) if unit.kind == AUD => unit.at + unit.bytes.len(),
            _ => 0,
        };
        let data = if key && !has_both {
            let mut data = Vec::with_capacity(payload.len() + 64);
            for unit in &self.sets.units {
                data.extend_from_slice(&[0, 0, 0, 1]);
                data.extend_from_slice(unit);
            }
            data.extend_from_slice(payload.get(begin..).unwrap_or_default());
            Bytes::from(data)
        } else {
            // large, and already where it can stay
            let begin = pes.begin + begin;
            Bytes::from(pes.bytes).split_off(begin)
        };
        self.out.video.push(AccessUnit {
            pts_raw: pts,
            dts_raw: pes.dts.unwrap_or(pts),
            key,
            offset: pes.offset,
            data,
            sets: Arc::clone(&self.sets),
        });
        Ok(())
    }

    fn sound(&mut self, pes: &Pes) -> Result<(), Damage> {
        let mut bytes = std::mem::take(&mut self.rest);
        let carried = bytes.len();
        bytes.extend_from_slice(pes.payload());
        // the time of a PES belongs to the first frame that begins in it
        let mut own = pes.pts;
        let mut pts = if carried > 0 { self.rest_pts } else { own.take().unwrap_or(self.rest_pts) };
        let mut at = 0;
        while let Some(frame) = frame_at(bytes.get(at..).unwrap_or_default())? {
            if at >= carried
                && let Some(time) = own.take()
            {
                pts = time;
            }
            let data = bytes.get(at..at + frame.length).unwrap_or_default().to_vec();
            let format = frame.format;
            self.out.audio.push(AudioFrame { pts_raw: pts, samples: frame.samples, format, data });
            at += frame.length;
            pts = (pts + frame.samples * TICKS / i64::from(format.rate)).rem_euclid(WRAP);
        }
        self.rest = bytes.split_off(at);
        self.rest_pts = own.filter(|_| at >= carried).unwrap_or(pts);
        Ok(())
    }

    fn finish(self) -> Result<Demuxed, Damage> {
        if !self.rest.is_empty() {
            return Err(Damage::Truncated);
        }
        if self.out.video.is_empty() {
            return Err(Damage::corrupt("it holds no picture"));
        }
        Ok(self.out)
    }
}

fn parameter_sets(units: Vec<Vec<u8>>) -> Result<ParameterSets, Damage> {
    let mut hasher = blake3::Hasher::new();
    let mut size = None;
    for unit in &units {
        hasher.update(&(unit.len() as u64).to_be_bytes());
        hasher.update(unit);
        if unit.first().is_some_and(|first| first & 31 == SPS) {
            size = size.or(h264::picture_size(unit));
        }
    }
    let size = size.ok_or(Damage::corrupt("the parameter sets make no sense"))?;
    let hash = hasher.finalize();
    let hash = hash.as_bytes().iter().take(8).fold(0u64, |hash, &byte| hash << 8 | u64::from(byte));
    Ok(ParameterSets { units, size, hash })
}
