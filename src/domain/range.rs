//! Which bytes of a file a `Range` header asks for (RFC 9110, 14.1.2 and 14.2).

/// Which bytes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of them: no range, or one that may be ignored.
    Whole,
    /// First and last, both inside.
    Part(u64, u64),
    /// A range that lies outside.
    Unsatisfiable,
}

/// Reads the value of a `Range` header for a file of `size` bytes. What cannot be read as one byte range is as if it
/// were not there; several ranges and units other than bytes too.
pub fn parse_range(range: &str, size: u64) -> Wanted {
    let Some((unit, set)) = range.split_once('=') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Wanted::Whole };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (Some(first), Some(last)) if last < first => Wanted::Whole,
        (Some(_), None) if !last.is_empty() => Wanted::Whole,
        (Some(first), last) => {
            if first >= size {
                return Wanted::Unsatisfiable;
            }
            Wanted::Part(first, last.unwrap_or(u64::MAX).min(size - 1))
        }
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 || size == 0 {
                return Wanted::Unsatisfiable;
            }
            Wanted::Part(size.saturating_sub(suffix), size - 1)
        }
        _ => Wanted::Whole,
    }
}

/// Digits only; more than fit are "beyond any file".
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_in_all_its_forms() {
        let parse = parse_range;
        assert_eq!(parse("bytes=0-0", 10), Wanted::Part(0, 0));
        assert_eq!(parse("bytes=2-", 10), Wanted::Part(2, 9));
        assert_eq!(parse("bytes=2-99", 10), Wanted::Part(2, 9));
        assert_eq!(parse("bytes=-3", 10), Wanted::Part(7, 9));
        assert_eq!(parse("bytes=-99", 10), Wanted::Part(0, 9));
        assert_eq!(parse("bytes=10-", 10), Wanted::Unsatisfiable);
        assert_eq!(parse("bytes=-0", 10), Wanted::Unsatisfiable);
        assert_eq!(parse("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(parse("bytes=99999999999999999999-", 10), Wanted::Unsatisfiable);
    }

    #[test]
    fn what_is_no_single_range_of_bytes_is_ignored() {
        for range in [
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes",
            "bytes=",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=-",
            "bytes=+1-2",
            "bytes=1-x",
            "bytes=x-1",
            "bytes=2--",
            "bytes=2-x-",
        ] {
            assert_eq!(parse_range(range, 10), Wanted::Whole, "{range}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_inside_and_means_what_was_asked(
            text in "bytes=[0-9]{0,3}[- x]{1,3}[0-9]{0,3}", size in 0u64..200,
        ) {
            match parse_range(&text, size) {
                Wanted::Part(first, last) => {
                    prop_assert!(first <= last && last < size);
                    prop_assert_eq!(text.matches('-').count(), 1, "{}", text);
                    // said plainly, it is the same
                    prop_assert_eq!(parse_range(&format!("bytes={first}-{last}"), size), Wanted::Part(first, last));
                }
                Wanted::Unsatisfiable => prop_assert_eq!(text.matches('-').count(), 1, "{}", text),
                Wanted::Whole => {}
            }
        }
    }
}
