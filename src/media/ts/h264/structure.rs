//! What an access unit's bytes show of damage without decoding: forbidden patterns, headers that make no sense.
//!
//! Little of a rotten slice shows here: what it codes is dense, and nearly every change of it codes something else.

use super::{Bits, IDR, PPS, SPS};

const SLICE: u8 = 1;
const SEI: u8 = 6;

/// What is wrong with a picture's bytes (Annex B), if anything can be seen.
pub(in crate::media::ts) fn fault(data: &[u8], key: bool) -> Option<&'static str> {
    let mut at = 0;
    let mut slices = 0u32;
    while let Some(&[a, b, c]) = data.get(at..at + 3) {
        if c > 3 {
            at += 3;
            continue;
        }
        if (a, b) != (0, 0) {
            at += 1;
            continue;
        }
        let behind = data.get(at + 3..).unwrap_or_default();
        match c {
            // zeros end a unit, and only a start code or the end follows them
            0 => match behind.iter().find(|&&byte| byte != 0) {
                None => break,
                Some(1) => {}
                Some(_) => return Some("zeros inside a picture"),
            },
            1 => {
                let fault = unit(behind, key, &mut slices);
                if fault.is_some() {
                    return fault;
                }
            }
            3 if behind.first().is_none_or(|&next| next <= 3) => {}
            _ => return Some("bytes that no picture holds"),
        }
        at += if c == 0 { 1 } else { 3 };
    }
    (slices == 0).then_some("a picture without a slice")
}

/// What is wrong with the beginning of a unit.
fn unit(bytes: &[u8], key: bool, slices: &mut u32) -> Option<&'static str> {
    let Some((&header, rest)) = bytes.split_first() else { return Some("a unit without a header") };
    let (kind, reference) = (header & 31, header >> 5 & 3);
    let must_be_one = matches!(kind, IDR | SPS | PPS);
    let cannot_be_one = matches!(kind, SEI | 9..=12);
    if header & 0x80 != 0
        || matches!(kind, 0 | 24..)
        || (must_be_one && reference == 0)
        || (cannot_be_one && reference != 0)
    {
        return Some("a unit's header makes no sense");
    }
    if !matches!(kind, SLICE | IDR) {
        return None;
    }
    if key != (kind == IDR) {
        return Some("slices of different pictures");
    }
    let mut bits = Bits::new(rest.get(..rest.len().min(24)).unwrap_or_default());
    let (Some(first), Some(kind_of_slice), Some(set)) =
        (bits.golomb(), bits.golomb(), bits.golomb())
    else {
        return Some("a slice's header makes no sense");
    };
    // pictures to start with are coded by themselves: I (2) or SI (4), each with a second number
    let alone = matches!(kind_of_slice, 2 | 4 | 7 | 9);
    *slices += 1;
    let sensible = kind_of_slice <= 9 && set <= 255 && (alone || !key);
    (!sensible || (*slices == 1 && first != 0)).then_some("a slice's header makes no sense")
}

#[cfg(test)]
mod tests {
    use super::fault;

    /// A key picture: first macroblock 0, kind 7 (I), set 0, then payload.
    fn picture(payload: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 1, 0x65, 0b1000_1000, 0b1000_0000][..], payload].concat()
    }

    #[test]
    fn what_an_encoder_may_write_passes() {
        for payload in
            [&[0x12, 0, 0, 3, 1, 0x80][..], &[0, 0, 3, 0, 0, 3, 1, 0x80], &[0x80, 0, 0, 0]]
        {
            assert_eq!(fault(&picture(payload), true), None, "{payload:?}");
        }
        let two = [picture(&[0x80]), vec![0, 0, 1, 0x65, 0b0100_0010, 0b0010_0000, 0x80]].concat();
        assert_eq!(fault(&two, true), None);
    }

    #[test]
    fn what_no_encoder_writes_is_seen() {
        for payload in [&[0x12, 0, 0, 2][..], &[0, 0, 3, 4], &[1, 0, 0, 0, 7], &[9, 0, 0, 1, 0xe5]]
        {
            assert!(fault(&picture(payload), true).is_some(), "{payload:?}");
        }
        assert!(fault(&picture(&[0x80]), false).is_some(), "a key slice in another picture");
        assert!(fault(&[0, 0, 1, 0x67, 1], true).is_some(), "no slice");
    }
}
