//! Writes a transport stream of one program: H.264 pictures and, if wanted, ADTS sound.

use super::{
    WRAP,
    packet::{PACKET, crc32},
};

const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;
const AUD: [u8; 6] = [0, 0, 0, 1, 9, 0xf0];
/// The stream's clock runs this many ticks behind the decoding times.
const CLOCK_LEAD: i64 = 9_000;

/// Collects the bytes; whoever owns it takes them away in pieces with [`TsWriter::take`].
#[derive(Debug)]
pub struct TsWriter {
    out: Vec<u8>,
    audio: bool,
    counters: [u8; 4],
    scratch: Vec<u8>,
}

impl TsWriter {
    /// A stream that begins with its tables.
    pub fn new(audio: bool) -> TsWriter {
        let mut writer = TsWriter { out: Vec::new(), audio, counters: [0; 4], scratch: Vec::new() };
        writer.tables();
        writer
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Bytes waiting to be taken.
    pub fn pending(&self) -> usize {
        self.out.len()
    }

    /// A picture (Annex B, without delimiter).
    pub fn video(&mut self, pts: i64, dts: i64, key: bool, data: &[u8]) {
        if key {
            self.tables();
        }
        let mut pes = std::mem::take(&mut self.scratch);
        pes.clear();
        pes.extend_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x84, 0xc0, 10]);
        pes.extend_from_slice(&stamp(3, pts));
        pes.extend_from_slice(&stamp(1, dts));
        pes.extend_from_slice(&AUD);
        pes.extend_from_slice(data);
        self.packets(VIDEO_PID, 2, &pes, Some((dts - CLOCK_LEAD, key)));
        self.scratch = pes;
    }

    /// A frame of sound with its header. Frames longer than a PES can say do not exist in ADTS (13 bits).
    pub fn audio(&mut self, pts: i64, data: &[u8]) {
        let mut pes = std::mem::take(&mut self.scratch);
        pes.clear();
        let [high, low] = u16::try_from(data.len() + 8).unwrap_or(0).to_be_bytes();
        pes.extend_from_slice(&[0, 0, 1, 0xc0, high, low, 0x84, 0x80, 5]);
        pes.extend_from_slice(&stamp(2, pts));
        pes.extend_from_slice(data);
        self.packets(AUDIO_PID, 3, &pes, None);
        self.scratch = pes;
    }

    fn tables(&mut self) {
        let [pmt_high, pmt_low] = PMT_PID.to_be_bytes();
        self.table(0, 0, &[0, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0 | pmt_high, pmt_low]);
        let [video_high, video_low] = VIDEO_PID.to_be_bytes();
        let [audio_high, audio_low] = AUDIO_PID.to_be_bytes();
        let mut body = vec![2, 0, 1, 0xc1, 0, 0, 0xe0 | video_high, video_low, 0xf0, 0];
        body.extend_from_slice(&[0x1b, 0xe0 | video_high, video_low, 0xf0, 0]);
        if self.audio {
            body.extend_from_slice(&[0x0f, 0xe0 | audio_high, audio_low, 0xf0, 0]);
        }
        self.table(PMT_PID, 1, &body);
    }

    /// `body`: the table's id, then everything after its length field.
    fn table(&mut self, pid: u16, counter: usize, body: &[u8]) {
        let mut section = vec![body.first().copied().unwrap_or(0), 0xb0, (body.len() + 3) as u8];
        section.extend_from_slice(body.get(1..).unwrap_or_default());
        let crc = crc32(&section);
        section.extend_from_slice(&crc.to_be_bytes());
        let count = self.count(counter);
        let [high, low] = pid.to_be_bytes();
        let begin = self.out.len();
        self.out.extend_from_slice(&[0x47, 0x40 | high, low, 0x10 | count, 0]);
        self.out.extend_from_slice(&section);
        self.out.resize(begin + PACKET, 0xff);
    }

    fn count(&mut self, index: usize) -> u8 {
        let Some(counter) = self.counters.get_mut(index) else { return 0 };
        let count = *counter;
        *counter = (count + 1) & 15;
        count
    }

    /// `clock`: program clock in ticks, and whether decoding can begin here.
    fn packets(&mut self, pid: u16, counter: usize, pes: &[u8], clock: Option<(i64, bool)>) {
        let [high, low] = pid.to_be_bytes();
        let mut rest = pes;
        let mut first = true;
        while !rest.is_empty() {
            let mut field = Vec::with_capacity(8);
            if first && let Some((clock, key)) = clock {
                field.push(0x10 | if key { 0x40 } else { 0 });
                let clock = clock.rem_euclid(WRAP);
                field.extend_from_slice(&((clock >> 1) as u32).to_be_bytes());
                field.extend_from_slice(&[((clock & 1) << 7) as u8 | 0x7e, 0]);
            }
            let mut room = PACKET - 4 - if field.is_empty() { 0 } else { 1 + field.len() };
            let has_field = !field.is_empty() || rest.len() < room;
            if rest.len() < room {
                if field.is_empty() {
                    room -= 1;
                    if rest.len() < room {
                        field.push(0);
                        room -= 1;
                    }
                }
                field.resize(field.len() + room.saturating_sub(rest.len()), 0xff);
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            let start = if first { 0x40 } else { 0 };
            let control = if has_field { 0x30 } else { 0x10 };
            let count = self.count(counter);
            self.out.extend_from_slice(&[0x47, start | high, low, control | count]);
            if has_field {
                self.out.push(field.len() as u8);
                self.out.extend_from_slice(&field);
            }
            self.out.extend_from_slice(now);
            rest = later;
            first = false;
        }
    }
}

fn stamp(kind: u8, time: i64) -> [u8; 5] {
    let time = time.rem_euclid(WRAP);
    [
        kind << 4 | ((time >> 29) as u8 & 0x0e) | 1,
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        (time << 1) as u8 | 1,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::ts::{AudioFormat, Demuxer, demux, silence};

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn sound_of_every_length_reads_back(lengths in proptest::collection::vec(1usize..700, 1..20)) {
            let format = AudioFormat { rate: 48_000, channels: 2, profile: 1 };
            let mut writer = TsWriter::new(true);
            let sps = [0, 0, 0, 1, 0x67, 66, 0, 30, 0xf8, 0x50, 0x11, 0x90, 0, 0, 0, 1, 0x68, 0xce];
            let mut picture = sps.to_vec();
            picture.extend_from_slice(&[0, 0, 1, 0x65, 1, 2, 3, 0x80]);
            writer.video(WRAP + 7, WRAP - 5, true, &picture);
            for (index, length) in lengths.iter().enumerate() {
                let mut frame = crate::media::ts::frame_header(format, *length).expect("short").to_vec();
                frame.resize(7 + length, index as u8);
                writer.audio(index as i64 * 1920, &frame);
            }
            writer.audio(lengths.len() as i64 * 1920, &silence(format).expect("stereo"));
            let read = demux(&writer.take()).expect("what we write, we read");
            proptest::prop_assert_eq!(read.audio.len(), lengths.len() + 1);
            for (index, (frame, length)) in read.audio.iter().zip(&lengths).enumerate() {
                proptest::prop_assert_eq!(frame.data.len(), length + 7);
                proptest::prop_assert_eq!(frame.pts_raw, index as i64 * 1920);
            }
            proptest::prop_assert_eq!(read.video[0].pts_raw, 7);
            proptest::prop_assert_eq!(read.video[0].dts_raw, WRAP - 5);
            proptest::prop_assert_eq!(&read.video[0].data, &picture);
        }

        #[test]
        fn pieces_come_to_the_same_as_the_whole(sizes in proptest::collection::vec(1usize..5_000, 1..40), packets in 1usize..50) {
            let format = AudioFormat { rate: 48_000, channels: 2, profile: 1 };
            let mut writer = TsWriter::new(true);
            let sps = [0, 0, 0, 1, 0x67, 66, 0, 30, 0xf8, 0x50, 0x11, 0x90, 0, 0, 0, 1, 0x68, 0xce];
            for (index, size) in sizes.iter().enumerate() {
                let at = index as i64 * 3_000;
                let mut picture = if index == 0 { sps.to_vec() } else { Vec::new() };
                picture.extend_from_slice(&[0, 0, 1, if index == 0 { 0x65 } else { 0x41 }, 0x88]);
                picture.resize(picture.len() + size, 0x5a);
                writer.video(at, at, index == 0, &picture);
                writer.audio(at, &silence(format).expect("stereo"));
            }
            let bytes = writer.take();
            let mut demuxer = Demuxer::new();
            for piece in bytes.chunks(packets * PACKET) {
                demuxer.take(piece).expect("a piece");
            }
            let read = demuxer.finish().expect("the end");
            proptest::prop_assert_eq!(read.video.len(), sizes.len());
            let whole = demux(&bytes).expect("the whole");
            proptest::prop_assert_eq!(format!("{read:?}"), format!("{whole:?}"));
        }
    }
}
