//! The recordings: 1080p, 30 pictures a second, about 6 Mbit/s, made once by `scripts/make-material.sh` as an egress
//! makes them and continued with shifted time stamps to any length, as one unbroken time line.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::cache;

/// Length of what GStreamer makes: 48 kHz sound in frames of 1024 samples ends with its last frame exactly here, and
/// segments of 2 s and of 10 s too.
const BASE_SECONDS: u64 = 80;
const SMALL_SECONDS: u64 = 40;
const PACKET: usize = 188;
const WRAP: u64 = 1 << 33;

/// Prepared segments, not to be changed.
pub struct Input {
    pub segments: Vec<PathBuf>,
    pub segment_seconds: u64,
}

impl Input {
    pub fn seconds(&self) -> u64 {
        self.segments.len() as u64 * self.segment_seconds
    }

    /// Makes it, or finds it made.
    pub fn prepare(segment_seconds: u64, seconds: u64) -> Input {
        let base_seconds = if seconds > SMALL_SECONDS { BASE_SECONDS } else { SMALL_SECONDS };
        let base = base(segment_seconds, base_seconds);
        let place = cache().join(format!("{segment_seconds}s-{seconds}"));
        let count = seconds / segment_seconds;
        let in_base = base_seconds / segment_seconds;
        if !place.join("whole").exists() {
            let draft = cache().join(format!("{}.draft", uuid::Uuid::new_v4().simple()));
            fs::create_dir_all(&draft).unwrap();
            let mut counters = HashMap::new();
            for number in 0..count {
                let mut bytes = fs::read(segment(&base, number % in_base)).unwrap();
                let shift = number / in_base * base_seconds * 90_000;
                move_segment(&mut bytes, shift, &mut counters);
                fs::write(segment(&draft, number), bytes).unwrap();
            }
            fs::write(draft.join("whole"), "").unwrap();
            fs::rename(&draft, &place).unwrap();
        }
        let segments = (0..count).map(|number| segment(&place, number)).collect();
        Input { segments, segment_seconds }
    }
}

fn segment(place: &Path, number: u64) -> PathBuf {
    place.join(format!("seg_{number:05}.ts"))
}

fn base(segment_seconds: u64, seconds: u64) -> PathBuf {
    let place = cache().join(format!("base-{segment_seconds}s-{seconds}"));
    if place.join("index.m3u8").exists() {
        return place;
    }
    eprintln!("making {seconds} s of 1080p with segments of {segment_seconds} s, once");
    let done = Command::new("scripts/make-material.sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg(&place)
        .arg(segment_seconds.to_string())
        .envs([("WIDTH", "1920"), ("HEIGHT", "1080"), ("KBPS", "6000"), ("AKBPS", "128")])
        .envs([("GRAIN", "24"), ("PRESET", "superfast")])
        // one segment more than is used: the end of a stream is not like its middle
        .env("LENGTH", (seconds + segment_seconds).to_string())
        .status()
        .unwrap();
    assert!(done.success(), "scripts/make-material.sh failed");
    place
}

/// Moves all time stamps of a segment and carries the continuity counters on from the segment before.
fn move_segment(bytes: &mut [u8], shift: u64, counters: &mut HashMap<u16, u8>) {
    for packet in bytes.chunks_exact_mut(PACKET) {
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let (has_field, has_payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        if has_payload {
            let next = counters.get(&pid).map_or(packet[3] & 15, |last| (last + 1) & 15);
            packet[3] = packet[3] & 0xf0 | next;
            counters.insert(pid, next);
        }
        let field = if has_field { usize::from(packet[4]) + 1 } else { 0 };
        if has_field && packet[4] >= 7 && packet[5] & 0x10 != 0 {
            move_clock(&mut packet[6..12], shift);
        }
        let starts = packet[1] & 0x40 != 0;
        let payload = &mut packet[(4 + field).min(PACKET)..];
        if starts && has_payload && payload.len() > 19 && payload[..3] == [0, 0, 1] {
            let stamps = payload[7] >> 6;
            if stamps & 2 != 0 {
                move_stamp(&mut payload[9..14], shift);
            }
            if stamps == 3 {
                move_stamp(&mut payload[14..19], shift);
            }
        }
    }
}

/// A PES time stamp: 3, 15 and 15 bits, each followed by a marker.
fn move_stamp(at: &mut [u8], shift: u64) {
    let of = |high: u8, low: u8| (u64::from(high) << 8 | u64::from(low)) >> 1;
    let value = u64::from(at[0] >> 1 & 7) << 30 | of(at[1], at[2]) << 15 | of(at[3], at[4]);
    let value = (value + shift) % WRAP;
    at[0] = at[0] & 0xf1 | ((value >> 30) as u8) << 1;
    at[1] = (value >> 22) as u8;
    at[2] = ((value >> 14) as u8) & 0xfe | 1;
    at[3] = (value >> 7) as u8;
    at[4] = ((value << 1) as u8) & 0xfe | 1;
}

/// A program clock reference: 33 bits of 90 kHz, then 6 unused and 9 finer ones.
fn move_clock(at: &mut [u8], shift: u64) {
    let value = u64::from(u32::from_be_bytes([at[0], at[1], at[2], at[3]])) << 1;
    let value = (value | u64::from(at[4] >> 7)) + shift;
    let value = value % WRAP;
    at[..4].copy_from_slice(&((value >> 1) as u32).to_be_bytes());
    at[4] = at[4] & 0x7f | (value as u8 & 1) << 7;
}
