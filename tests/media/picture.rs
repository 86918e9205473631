//! The numbered pictures and the beeps of all recordings here: what a generator draws and what a decoder reads.
//!
//! A picture's top ninth is twenty cells: white, black, 16 bits of the number, their parity, its opposite. A beep of
//! 60 ms begins at each whole second. Needs nothing but the standard library: `examples/raw_material.rs` and the
//! bench include this file too.

/// Samples per second of all sound.
pub const RATE: usize = 48_000;
/// Cells of a marker.
pub const CELLS: usize = 20;

const WHITE: u8 = 235;
const BLACK: u8 = 16;

/// A grey picture, row by row. `grain` (0 to 40) roughens it, so that an encoder needs its bits.
pub fn picture(number: i64, width: usize, height: usize, grain: u8) -> Vec<u8> {
    let cells = cells(number);
    let mut picture = vec![0u8; width * height];
    for (y, row) in picture.chunks_mut(width).enumerate() {
        if y < height / 9 {
            for (x, pixel) in row.iter_mut().enumerate() {
                *pixel = if cells[(x * CELLS / width).min(CELLS - 1)] { WHITE } else { BLACK };
            }
            continue;
        }
        let at = y * 2 + number as usize * 5;
        for (x, pixel) in row.iter_mut().enumerate() {
            *pixel = (40 + (x * 3 + at) % 160) as u8;
        }
        if grain > 0 {
            // a texture that wanders, so that most of it can be predicted, as of a scrolled page
            let (right, down) = (number as u32 * 2, number as u32 / 3);
            for (x, pixel) in row.iter_mut().enumerate() {
                let mixed = (x as u32 + right).wrapping_mul(0x9e37_79b1)
                    ^ (y as u32 + down).wrapping_mul(0x85eb_ca77);
                let mixed = mixed ^ (mixed >> 15);
                *pixel += (mixed.wrapping_mul(0x2c1b_3c6d) >> 24) as u8 % grain;
            }
        }
    }
    picture
}

/// The marker of a number; `true` is white.
pub fn cells(number: i64) -> [bool; CELLS] {
    let parity = number.count_ones() % 2 == 1;
    std::array::from_fn(|cell| match cell {
        0 => true,
        1 => false,
        18 => parity,
        19 => !parity,
        bit => number >> (17 - bit) & 1 == 1,
    })
}

#[allow(dead_code, reason = "the generator only draws")]
/// The number that a row of cells' brightnesses tells; `None` when they are no marker.
pub fn number_of(cells: &[u8]) -> Option<i64> {
    let bits: Vec<bool> = cells.iter().map(|&cell| cell > 125).collect();
    let number = bits.get(2..18)?.iter().fold(0i64, |number, &bit| number << 1 | i64::from(bit));
    let parity = number.count_ones() % 2 == 1;
    let intact = bits[0] && !bits[1] && *bits.get(18)? == parity && *bits.get(19)? != parity;
    intact.then_some(number)
}

/// One sample of the sound, counted from a whole second.
pub fn sample(at: usize) -> i16 {
    let inside = at % RATE < RATE * 60 / 1000;
    let wave = (at as f64 * 2.0 * std::f64::consts::PI * 880.0 / RATE as f64).sin();
    if inside { (wave * 20_000.0) as i16 } else { 0 }
}
