//! The mark on every frame of a simulated screen: a frame counter and the screen's clock as black and white cells.
//!
//! Pure: turns a [`Marker`] into cells and a picture's brightness back into a [`Marker`]. The grid is laid over the
//! *content rectangle* (the picture without letterbox borders) in fractions of its size, so it survives scaling; a
//! sync pattern and a checksum make a wrong reading practically impossible (about one in a million random grids).

/// Cells in a row.
pub const COLUMNS: u32 = 24;
/// Rows of cells.
pub const ROWS: u32 = 4;
/// Cells in all: 4 sync, 32 counter, 44 clock, 16 checksum.
pub const CELLS: usize = (COLUMNS * ROWS) as usize;
/// Height of the marked band: this many hundredths of the content's height, from its top.
pub const BAND_PERCENT: u32 = 24;

const SYNC: u8 = 0b1010;
const CLOCK_BITS: u32 = 44;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Marker {
    /// Number of the frame since the egress's first one, from 0.
    pub counter: u32,
    /// When the frame was on the screen: milliseconds since the Unix epoch, 44 bits of it.
    pub screen_ms: u64,
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Rect {
    /// The whole of a picture.
    pub fn full(width: u32, height: u32) -> Rect {
        Rect { x: 0, y: 0, width, height }
    }

    /// Where a source of one size lands in an output of another when its shape is kept and borders fill the rest.
    /// Edges are even, as 4:2:0 pictures want them.
    pub fn letterbox(source: (u32, u32), output: (u32, u32)) -> Rect {
        let (source_width, source_height) =
            (u64::from(source.0.max(1)), u64::from(source.1.max(1)));
        let (out_width, out_height) = (u64::from(output.0), u64::from(output.1));
        let even = |value: u64| ((value / 2) * 2).max(2) as u32;
        let (width, height) = if source_width * out_height >= source_height * out_width {
            (output.0, even((out_width * source_height + source_width / 2) / source_width))
        } else {
            (even((out_height * source_width + source_height / 2) / source_height), output.1)
        };
        let (width, height) = (width.min(output.0), height.min(output.1));
        let margin = |outer: u32, inner: u32| ((outer - inner) / 4) * 2;
        Rect { x: margin(output.0, width), y: margin(output.1, height), width, height }
    }

    /// The band that holds the cells.
    pub fn band(self) -> Rect {
        Rect { height: (self.height * BAND_PERCENT / 100).max(ROWS), ..self }
    }
}

/// The cells of a marker, row by row; `true` is white.
pub fn encode(marker: Marker) -> [bool; CELLS] {
    let clock = marker.screen_ms & ((1 << CLOCK_BITS) - 1);
    let mut bits = u128::from(SYNC);
    bits = (bits << 32) | u128::from(marker.counter);
    bits = (bits << CLOCK_BITS) | u128::from(clock);
    bits = (bits << 16) | u128::from(checksum(marker.counter, clock));
    std::array::from_fn(|index| (bits >> (CELLS - 1 - index)) & 1 == 1)
}

/// Reads the marker in the content rectangle of a picture: `luma` is one byte per pixel, `stride` bytes per row.
/// `None` when there is none (black picture, wrong rectangle, destroyed).
pub fn decode(luma: &[u8], stride: usize, content: Rect) -> Option<Marker> {
    let mut levels = [0u32; CELLS];
    for (index, level) in levels.iter_mut().enumerate() {
        *level = brightness(luma, stride, cell(content, index))?;
    }
    // the sync cells are white, black, white, black
    let white = (levels[0] + levels[2]) / 2;
    let black = (levels[1] + levels[3]) / 2;
    if white < black + 40 {
        return None;
    }
    let threshold = (white + black) / 2;
    let bits =
        levels.iter().fold(0u128, |bits, level| (bits << 1) | u128::from(*level > threshold));
    let counter = (bits >> (CLOCK_BITS + 16)) as u32;
    let screen_ms = ((bits >> 16) as u64) & ((1 << CLOCK_BITS) - 1);
    let intact = (bits >> (CELLS - 4)) as u8 == SYNC
        && (bits & 0xffff) as u16 == checksum(counter, screen_ms);
    intact.then_some(Marker { counter, screen_ms })
}

/// The pixels of one cell.
pub fn cell(content: Rect, index: usize) -> Rect {
    let band = content.band();
    let (column, row) = (index as u32 % COLUMNS, index as u32 / COLUMNS);
    let x = band.width * column / COLUMNS;
    let y = band.height * row / ROWS;
    Rect {
        x: band.x + x,
        y: band.y + y,
        width: band.width * (column + 1) / COLUMNS - x,
        height: band.height * (row + 1) / ROWS - y,
    }
}

/// Mean brightness of the middle of a cell: its edges are where scaling and compression blur.
fn brightness(luma: &[u8], stride: usize, cell: Rect) -> Option<u32> {
    let inner = |start: u32, length: u32| {
        let from = start + length * 3 / 10;
        (from, (start + length - length * 3 / 10).max(from + 1))
    };
    let (left, right) = inner(cell.x, cell.width);
    let (top, bottom) = inner(cell.y, cell.height);
    let mut sum = 0u32;
    for y in top..bottom {
        let row = y as usize * stride;
        let pixels = luma.get(row + left as usize..row + right as usize)?;
        sum += pixels.iter().map(|pixel| u32::from(*pixel)).sum::<u32>();
    }
    Some(sum / ((right - left) * (bottom - top)))
}

/// CRC-16/CCITT over counter and clock.
fn checksum(counter: u32, clock: u64) -> u16 {
    let bytes = counter.to_be_bytes().into_iter().chain(clock.to_be_bytes());
    bytes.fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paint(marker: Marker, width: u32, height: u32, content: Rect) -> Vec<u8> {
        let mut luma = vec![16u8; (width * height) as usize];
        for (index, white) in encode(marker).into_iter().enumerate() {
            let cell = cell(content, index);
            for y in cell.y..cell.y + cell.height {
                let row = (y * width) as usize;
                luma[row + cell.x as usize..row + (cell.x + cell.width) as usize].fill(if white {
                    235
                } else {
                    16
                });
            }
        }
        luma
    }

    proptest! {
        #[test]
        fn what_was_painted_is_read_at_any_size(
            counter: u32,
            screen_ms in 0u64..(1 << CLOCK_BITS),
            source in (100u32..4000, 100u32..2200),
            output in prop::sample::select(vec![(160u32, 90u32), (640, 360), (1280, 720), (1920, 1080)]),
        ) {
            let content = Rect::letterbox(source, output);
            // slivers have no room for cells
            prop_assume!(content.width >= 96 && content.height >= 60);
            let marker = Marker { counter, screen_ms };
            let luma = paint(marker, output.0, output.1, content);
            prop_assert_eq!(decode(&luma, output.0 as usize, content), Some(marker));
        }

        #[test]
        fn a_wrong_cell_is_noticed(counter: u32, screen_ms in 0u64..(1 << CLOCK_BITS), wrong in 4usize..CELLS) {
            let content = Rect::full(640, 360);
            let mut luma = paint(Marker { counter, screen_ms }, 640, 360, content);
            let cell = cell(content, wrong);
            for y in cell.y..cell.y + cell.height {
                for x in cell.x..cell.x + cell.width {
                    let pixel = &mut luma[(y * 640 + x) as usize];
                    *pixel = 251 - *pixel;
                }
            }
            prop_assert_eq!(decode(&luma, 640, content), None);
        }

        #[test]
        fn the_content_lies_inside_the_output_and_is_even(
            source in (1u32..8000, 1u32..8000),
            output in (8u32..1000, 8u32..1000).prop_map(|(w, h)| (w * 2, h * 2)),
        ) {
            let rect = Rect::letterbox(source, output);
            prop_assert!(rect.x + rect.width <= output.0 && rect.y + rect.height <= output.1);
            prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|edge| edge % 2 == 0));
            prop_assert!(rect.width == output.0 || rect.height == output.1);
        }
    }

    #[test]
    fn black_and_outside_are_no_markers() {
        assert_eq!(decode(&vec![16; 640 * 360], 640, Rect::full(640, 360)), None);
        assert_eq!(decode(&[16; 100], 640, Rect::full(640, 360)), None);
    }
}
