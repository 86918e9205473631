//! Draws the simulated screen: the marker, a clock that people can read, a bar that moves.
//!
//! One 4:2:0 buffer is kept per egress and only what changed since the last frame is drawn again, so that a frame
//! costs little more than the copy into the encoder's pipe.

use super::marker::{self, CELLS, Marker, Rect};

type Colour = (u8, u8, u8);

const BLACK: Colour = (16, 128, 128);
const DESK: Colour = (52, 140, 120);
const WINDOW: Colour = (205, 128, 128);
const TITLE: Colour = (90, 170, 105);
const TEXT_LINE: Colour = (150, 128, 128);
const LANE: Colour = (32, 128, 128);
const BAR: Colour = (170, 60, 165);
const LIT: Colour = (225, 110, 140);
const UNLIT: Colour = (36, 128, 128);

/// Which of the seven segments (top, upper left, upper right, middle, lower left, lower right, bottom) make a digit.
const DIGITS: [u8; 10] = [
    0b1110111, 0b0010010, 0b1011101, 0b1011011, 0b0111010, 0b1101011, 0b1101111, 0b1010010,
    0b1111111, 0b1111011,
];

/// The frame buffer of one egress.
pub(super) struct Screen {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    /// What is drawn at present; `None` after a change of size or a black phase: everything is to be drawn.
    drawn: Option<Drawn>,
}

struct Drawn {
    source: (u32, u32),
    cells: [bool; CELLS],
    bar: Rect,
    digits: [u8; 6],
}

impl Screen {
    /// A black picture of an even size.
    pub(super) fn new(width: u32, height: u32) -> Screen {
        let mut screen = Screen { width, height, pixels: Vec::new(), drawn: None };
        screen.pixels = vec![BLACK.1; screen.luma_len() * 3 / 2];
        screen.black();
        screen
    }

    /// The picture as planar 4:2:0.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// What egress records of a muted source.
    pub(super) fn black(&mut self) {
        let luma = self.luma_len();
        self.pixels[..luma].fill(BLACK.0);
        self.pixels[luma..].fill(BLACK.1);
        self.drawn = None;
    }

    /// The screen at a moment; a source of another shape than the output gets borders.
    pub(super) fn draw(&mut self, source: (u32, u32), marker: Marker) {
        let content = Rect::letterbox(source, (self.width, self.height));
        let cells = marker::encode(marker);
        let digits = digits_of(marker.screen_ms);
        let bar = bar_at(content, marker.screen_ms);
        match self.drawn.take().filter(|drawn| drawn.source == source) {
            Some(old) => {
                self.draw_cells(content, &cells, Some(&old.cells));
                self.fill(old.bar, LANE);
                self.draw_digits(content, &digits, Some(&old.digits));
            }
            None => {
                self.black();
                self.draw_desk(content);
                self.draw_cells(content, &cells, None);
                self.draw_digits(content, &digits, None);
            }
        }
        self.fill(bar, BAR);
        self.drawn = Some(Drawn { source, cells, bar, digits });
    }

    fn draw_desk(&mut self, content: Rect) {
        self.fill(content, DESK);
        // the marker lives in brightness alone: no colour beneath it
        self.fill(content.band(), BLACK);
        self.fill(part(content, (4, 30, 44, 48)), WINDOW);
        self.fill(part(content, (4, 30, 44, 5)), TITLE);
        for line in 0..6 {
            self.fill(part(content, (7, 39 + line * 6, 30 + (line * 7) % 10, 2)), TEXT_LINE);
        }
        self.fill(part(content, (54, 30, 42, 48)), UNLIT);
        self.fill(part(content, (54, 30, 42, 5)), TITLE);
        self.fill(lane(content), LANE);
    }

    fn draw_cells(&mut self, content: Rect, cells: &[bool; CELLS], old: Option<&[bool; CELLS]>) {
        for (index, white) in cells.iter().enumerate() {
            if old.is_none_or(|old| old[index] != *white) {
                self.fill_luma(marker::cell(content, index), if *white { 235 } else { 16 });
            }
        }
    }

    fn draw_digits(&mut self, content: Rect, digits: &[u8; 6], old: Option<&[u8; 6]>) {
        for (place, digit) in digits.iter().enumerate() {
            if old.is_none_or(|old| old[place] != *digit) {
                let column = place as u32;
                self.draw_digit(part(content, (57 + column * 6 + column / 2, 46, 5, 20)), *digit);
            }
        }
    }

    fn draw_digit(&mut self, area: Rect, digit: u8) {
        let segments = [
            (20, 0, 60, 12),
            (0, 8, 20, 36),
            (80, 8, 20, 36),
            (20, 44, 60, 12),
            (0, 56, 20, 36),
            (80, 56, 20, 36),
            (20, 88, 60, 12),
        ];
        let lit = DIGITS[usize::from(digit)];
        for (index, place) in segments.into_iter().enumerate() {
            let on = lit >> (6 - index) & 1 == 1;
            self.fill(part(area, place), if on { LIT } else { UNLIT });
        }
    }

    /// Fills a rectangle; chroma covers two pixels each way, so edges are widened to even ones inside the picture.
    fn fill(&mut self, rect: Rect, colour: Colour) {
        let left = rect.x / 2 * 2;
        let top = rect.y / 2 * 2;
        let right = (rect.x + rect.width).div_ceil(2) * 2;
        let bottom = (rect.y + rect.height).div_ceil(2) * 2;
        let rect = Rect {
            x: left,
            y: top,
            width: right.min(self.width).saturating_sub(left),
            height: bottom.min(self.height).saturating_sub(top),
        };
        self.fill_luma(rect, colour.0);
        let luma = self.luma_len();
        let half =
            Rect { x: rect.x / 2, y: rect.y / 2, width: rect.width / 2, height: rect.height / 2 };
        let stride = self.width as usize / 2;
        let (u, v) = self.pixels[luma..].split_at_mut(luma / 4);
        fill_plane(u, stride, half, colour.1);
        fill_plane(v, stride, half, colour.2);
    }

    fn fill_luma(&mut self, rect: Rect, value: u8) {
        let luma = self.luma_len();
        fill_plane(&mut self.pixels[..luma], self.width as usize, rect, value);
    }

    fn luma_len(&self) -> usize {
        self.width as usize * self.height as usize
    }
}

fn fill_plane(plane: &mut [u8], stride: usize, rect: Rect, value: u8) {
    for y in rect.y..rect.y + rect.height {
        let from = y as usize * stride + rect.x as usize;
        plane[from..from + rect.width as usize].fill(value);
    }
}

/// A part of a rectangle given in hundredths: left, top, width, height.
fn part(of: Rect, (x, y, width, height): (u32, u32, u32, u32)) -> Rect {
    Rect {
        x: of.x + of.width * x / 100,
        y: of.y + of.height * y / 100,
        width: of.width * width / 100,
        height: of.height * height / 100,
    }
}

fn lane(content: Rect) -> Rect {
    part(content, (4, 84, 92, 10))
}

/// The bar crosses its lane once in four seconds.
fn bar_at(content: Rect, screen_ms: u64) -> Rect {
    let lane = lane(content);
    let width = (lane.width / 12).max(2);
    let travel = u64::from(lane.width.saturating_sub(width));
    let x = travel * (screen_ms % 4000) / 4000;
    // inside the lane by an even margin, so that widening to even edges never leaves a trace outside
    Rect { x: (lane.x + x as u32) / 2 * 2, width: width / 2 * 2, ..lane }
}

fn digits_of(screen_ms: u64) -> [u8; 6] {
    let seconds = screen_ms / 1000;
    let pairs = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
    std::array::from_fn(|place| {
        let pair = pairs[place / 2];
        (if place % 2 == 0 { pair / 10 } else { pair % 10 }) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_the_difference_gives_the_same_picture_as_drawing_anew() {
        for (source, output) in
            [((1920, 1080), (640, 360)), ((801, 603), (320, 240)), ((300, 900), (160, 90))]
        {
            let mut kept = Screen::new(output.0, output.1);
            for counter in 0..90u32 {
                let marker =
                    Marker { counter, screen_ms: 1_790_000_000_123 + u64::from(counter) * 333 };
                kept.draw(source, marker);
                let mut fresh = Screen::new(output.0, output.1);
                fresh.draw(source, marker);
                assert!(kept.pixels() == fresh.pixels(), "frame {counter} of {source:?}");
            }
        }
    }

    #[test]
    fn a_drawn_screen_carries_its_marker_and_a_black_one_none() {
        let mut screen = Screen::new(160, 90);
        let marker = Marker { counter: 77, screen_ms: 1_790_000_000_999 };
        screen.draw((1919, 1079), marker);
        let content = Rect::letterbox((1919, 1079), (160, 90));
        assert_eq!(marker::decode(screen.pixels(), 160, content), Some(marker));
        screen.black();
        assert_eq!(marker::decode(screen.pixels(), 160, content), None);
    }
}
