//! What the writer takes, and the change of dress from start codes to lengths.

/// One picture. Times are 90 kHz ticks of the clip, on any zero, the same for sound.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// When it is shown.
    pub pts: i64,
    /// When it is decoded. If these do not rise strictly, or come later than `pts`, the writer makes its own for the
    /// whole file.
    pub dts: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// The access unit; delimiters and parameter sets in it are left out, all other units kept byte for byte.
    pub data: Payload<'a>,
}

/// The bytes of an access unit.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Units behind start codes of three or four bytes.
    AnnexB(&'a [u8]),
    /// Units behind their length in four bytes.
    Prefixed(&'a [u8]),
}
