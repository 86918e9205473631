//! Writing boxes: a box gets its length when its body is known.

/// Everything that is written here is far below 4 GiB; a length that is not would be caught by the file's check.
pub(super) fn boxed(out: &mut Vec<u8>, name: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(name);
    body(out);
    let length = u32::try_from(out.len() - begin).unwrap_or(0);
    if let Some(place) = out.get_mut(begin..begin + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// A box with version and flags.
pub(super) fn full(
    out: &mut Vec<u8>,
    name: &[u8; 4],
    version: u8,
    flags: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    boxed(out, name, |out| {
        let [_, rest @ ..] = flags.to_be_bytes();
        out.push(version);
        out.extend_from_slice(&rest);
        body(out);
    });
}

/// Numbers, each in four bytes.
pub(super) fn words(out: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Numbers, each in two bytes.
pub(super) fn halves(out: &mut Vec<u8>, numbers: &[u16]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Numbers, each in four bytes in version 0 of a box and in eight in version 1.
pub(super) fn sized(out: &mut Vec<u8>, version: u8, numbers: &[u64]) {
    for number in numbers {
        if version == 1 {
            out.extend_from_slice(&number.to_be_bytes());
        } else {
            words(out, &[u32::try_from(*number).unwrap_or(u32::MAX)]);
        }
    }
}

/// A table: the number of entries, then the entries.
pub(super) fn counted<T>(
    out: &mut Vec<u8>,
    entries: impl ExactSizeIterator<Item = T>,
    mut entry: impl FnMut(&mut Vec<u8>, T),
) {
    words(out, &[u32::try_from(entries.len()).unwrap_or(u32::MAX)]);
    entries.for_each(|value| entry(out, value));
}
