//! The outermost layer: 188-byte packets, the two tables, and what can be wrong with them.

use std::fmt;

/// Bytes in a packet.
pub(crate) const PACKET: usize = 188;
const SYNC: u8 = 0x47;
const NULL_PID: u16 = 0x1fff;
const STREAM_H264: u8 = 0x1b;
const STREAM_ADTS: u8 = 0x0f;

/// Why a segment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// No bytes at all.
    Empty,
    /// The end is missing: cut inside a packet or a PES, or filled with zeros.
    Truncated,
    /// Broken or missing bytes inside.
    Corrupt {
        /// What was seen, for the log.
        why: &'static str,
    },
    /// Whole perhaps, but not a transport stream with H.264 pictures.
    Foreign,
}

impl Damage {
    /// The word used for gaps: `empty`, `truncated`, `corrupt`, `foreign`.
    pub fn reason(&self) -> &'static str {
        match self {
            Damage::Empty => "empty",
            Damage::Truncated => "truncated",
            Damage::Corrupt { .. } => "corrupt",
            Damage::Foreign => "foreign",
        }
    }

    pub(super) const fn corrupt(why: &'static str) -> Damage {
        Damage::Corrupt { why }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Corrupt { why } => write!(f, "corrupt: {why}"),
            other => f.write_str(other.reason()),
        }
    }
}

impl std::error::Error for Damage {}

/// One packet's interesting fields.
pub(super) struct Packet<'a> {
    pub pid: u16,
    pub start: bool,
    pub payload: &'a [u8],
    /// Of the packet, from the start of the segment.
    pub offset: usize,
    counter: u8,
    has_payload: bool,
    discontinuity: bool,
}

/// Walks over the packets of a segment; checks shape, flags and continuity on the way.
pub(super) struct Packets<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// Of the bytes, from the start of the segment.
    base: usize,
    counters: &'a mut Counters,
}

/// The last counter of every stream of a segment.
pub(super) struct Counters(Box<[u8; 8192]>);

impl Counters {
    pub fn new() -> Counters {
        Counters(Box::new([UNSEEN; 8192]))
    }
}

/// No counter seen yet (counters have four bits).
const UNSEEN: u8 = 0xff;

impl<'a> Packets<'a> {
    /// The bytes that begin at `base` in their segment, with a packet.
    pub fn new(bytes: &'a [u8], base: usize, counters: &'a mut Counters) -> Packets<'a> {
        Packets { bytes, offset: 0, base, counters }
    }

    /// The next packet that carries something, or none at the end.
    pub fn next(&mut self) -> Result<Option<Packet<'a>>, Damage> {
        while let Some(bytes) = self.bytes.get(self.offset..self.offset + PACKET) {
            if bytes.first() != Some(&SYNC) {
                return Err(self.lost());
            }
            let packet = parse(bytes, self.base + self.offset)?;
            self.offset += PACKET;
            if packet.pid != NULL_PID && self.is_new(&packet)? {
                return Ok(Some(packet));
            }
        }
        match self.bytes.get(self.offset) {
            None => Ok(None),
            Some(&SYNC) => Err(Damage::Truncated),
            Some(_) => Err(self.lost()),
        }
    }

    /// Appends the payloads of the packets that follow in `pid` and have nothing but a payload: no beginning, no
    /// adaptation field, no flag, the next counter. Whatever else comes is left for [`next`](Self::next).
    pub fn take_run(&mut self, pid: u16, into: &mut Vec<u8>) {
        let [high, low] = pid.to_be_bytes();
        let Some(last) = self.counters.0.get_mut(usize::from(pid)) else { return };
        while let Some(bytes) = self.bytes.get(self.offset..self.offset + PACKET) {
            let counter = last.wrapping_add(1) & 15;
            let (head, payload) = bytes.split_at(4);
            if head != [SYNC, high, low, 0x10 | counter] {
                return;
            }
            into.extend_from_slice(payload);
            *last = counter;
            self.offset += PACKET;
        }
    }

    /// What is wrong where a packet should begin.
    fn lost(&self) -> Damage {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        // a crash between "size" and "data" leaves zeros
        if rest.iter().all(|&byte| byte == 0) {
            return Damage::Truncated;
        }
        if self.base + self.offset == 0 { Damage::Foreign } else { Damage::corrupt("sync is lost") }
    }

    /// Continuity: false for a repeated packet (allowed once), damage for a missing one.
    fn is_new(&mut self, packet: &Packet<'_>) -> Result<bool, Damage> {
        if !packet.has_payload {
            return Ok(false);
        }
        let Some(last) = self.counters.0.get_mut(usize::from(packet.pid)) else {
            return Ok(false);
        };
        let (before, now) = (*last, packet.counter);
        *last = now;
        if before == UNSEEN || packet.discontinuity || now == (before + 1) & 15 {
            return Ok(true);
        }
        if now == before { Ok(false) } else { Err(Damage::corrupt("packets are missing")) }
    }
}

fn parse(bytes: &[u8], offset: usize) -> Result<Packet<'_>, Damage> {
    let &[_, high, low, flags, ..] = bytes else {
        return Err(Damage::Truncated);
    };
    if high & 0x80 != 0 {
        return Err(Damage::corrupt("a packet is marked as erroneous"));
    }
    if flags & 0xc0 != 0 {
        return Err(Damage::corrupt("scrambled packets"));
    }
    let adaptation = flags & 0x20 != 0;
    let has_payload = flags & 0x10 != 0;
    let mut at = 4;
    let mut discontinuity = false;
    if adaptation {
        let length = usize::from(bytes.get(4).copied().unwrap_or(0));
        at += 1 + length;
        if at > PACKET {
            return Err(Damage::corrupt("an adaptation field is too long"));
        }
        discontinuity = length > 0 && bytes.get(5).is_some_and(|flags| flags & 0x80 != 0);
    }
    let payload = if has_payload { bytes.get(at..).unwrap_or_default() } else { &[] };
    Ok(Packet {
        pid: u16::from(high & 0x1f) << 8 | u16::from(low),
        start: high & 0x40 != 0,
        payload,
        offset,
        counter: flags & 15,
        has_payload,
        discontinuity,
    })
}

/// Which packets carry what.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub pmt: Option<u16>,
    pub video: Option<u16>,
    pub audio: Option<u16>,
    pub seen_pmt: bool,
}

impl Program {
    /// Takes the packet if it belongs to one of the two tables.
    pub fn take_table(&mut self, packet: &Packet<'_>) -> Result<bool, Damage> {
        if packet.pid == 0 {
            if packet.start && self.pmt.is_none() {
                self.read_pat(section(packet.payload)?)?;
            }
            return Ok(true);
        }
        if Some(packet.pid) != self.pmt {
            return Ok(false);
        }
        if packet.start && !self.seen_pmt {
            self.read_pmt(section(packet.payload)?)?;
        }
        Ok(true)
    }

    fn read_pat(&mut self, body: &[u8]) -> Result<(), Damage> {
        // the first entry that is a program and not the network table
        let entries = body.get(8..).unwrap_or_default();
        let program = entries.chunks_exact(4).find(|entry| entry[0] != 0 || entry[1] != 0);
        let entry = program.ok_or(Damage::Foreign)?;
        self.pmt = Some(pid(entry[2], entry[3]));
        Ok(())
    }

    fn read_pmt(&mut self, body: &[u8]) -> Result<(), Damage> {
        let bad = Damage::corrupt("the program table is too short");
        let &[high, low] = body.get(10..12).ok_or(bad)? else {
            return Err(Damage::corrupt("the program table is too short"));
        };
        let mut at = 12 + usize::from(pid(high, low) & 0xfff);
        while let Some(&[kind, high, low, info_high, info_low]) = body.get(at..at + 5) {
            match kind {
                STREAM_H264 => self.video = self.video.or(Some(pid(high, low))),
                STREAM_ADTS => self.audio = self.audio.or(Some(pid(high, low))),
                _ => {}
            }
            at += 5 + usize::from(pid(info_high, info_low) & 0xfff);
        }
        self.seen_pmt = true;
        if self.video.is_some() { Ok(()) } else { Err(Damage::Foreign) }
    }
}

fn pid(high: u8, low: u8) -> u16 {
    u16::from(high & 0x1f) << 8 | u16::from(low)
}

/// A table's bytes up to its checksum. Tables of one program fit into one packet; longer ones are not ours.
fn section(payload: &[u8]) -> Result<&[u8], Damage> {
    let pointer = usize::from(payload.first().copied().unwrap_or(0));
    let body = payload.get(1 + pointer..).ok_or(Damage::corrupt("a table starts nowhere"))?;
    let &[_, high, low, ..] = body else {
        return Err(Damage::corrupt("a table starts nowhere"));
    };
    let length = 3 + usize::from(u16::from(high & 15) << 8 | u16::from(low));
    let whole = body.get(..length).ok_or(Damage::Foreign)?;
    if length < 12 || crc32(whole) != 0 {
        return Err(Damage::corrupt("a table's checksum is wrong"));
    }
    whole.get(..length - 4).ok_or(Damage::Foreign)
}

/// The checksum of the tables (CRC-32/MPEG-2); over a table with its checksum it is zero.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x04c1_1db7 }
        })
    })
}
