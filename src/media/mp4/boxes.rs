//! The box structure: walking, finding, numbers at places.

/// The boxes that lie side by side in some bytes: name and body.
pub(super) struct Boxes<'a> {
    rest: &'a [u8],
}

impl<'a> Boxes<'a> {
    pub fn new(rest: &'a [u8]) -> Boxes<'a> {
        Boxes { rest }
    }

    /// The body of the first box of that name.
    pub fn find(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
        Boxes::new(bytes).find(|(found, _)| found == name).map(|(_, body)| body)
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.rest.get(4..8)?.try_into().ok()?;
        let (head, length) = match u32_at(self.rest, 0)? {
            1 => (16, usize::try_from(u64_at(self.rest, 8)?).ok()?),
            0 => (8, self.rest.len()),
            length => (8, usize::try_from(length).ok()?),
        };
        let body = self.rest.get(head..length)?;
        self.rest = self.rest.get(length..)?;
        Some((name, body))
    }
}

/// Version of a full box, and what follows its flags.
pub(super) fn full_box(body: &[u8]) -> Option<(u8, &[u8])> {
    Some((*body.first()?, body.get(4..)?))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
