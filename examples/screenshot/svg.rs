//! A buffer of cells as an SVG. Blocks and lines are drawn as shapes, so that they meet whatever font there is.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use ratatui::text::Span;

/// Size of a cell, and where in it letters stand.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 17.0;
const BASELINE: f32 = 12.8;
const MARGIN: f32 = 10.0;
/// Of the terminal itself.
const FOREGROUND: &str = "#d8dee4";
const BACKGROUND: &str = "#14181d";

/// The whole picture.
pub fn of(buffer: &Buffer) -> String {
    let area = buffer.area();
    let (width, height) = (f32::from(area.width) * WIDTH, f32::from(area.height) * HEIGHT);
    let (outer_width, outer_height) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {outer_width:.1} {outer_height:.1}" width="{outer_width:.0}" height="{outer_height:.0}">
<style>text{{font-family:'DejaVu Sans Mono','Menlo','Consolas','Liberation Mono',monospace;font-size:13.5px;white-space:pre}}</style>
<rect width="100%" height="100%" rx="7" fill="{BACKGROUND}"/>
<g transform="translate({MARGIN},{MARGIN})">
"#
    );
    for y in 0..area.height {
        row(buffer, y, &mut out);
    }
    out += "</g>\n</svg>\n";
    out
}

/// Cells side by side that look alike.
#[derive(Default)]
struct Run {
    from: u16,
    cells: u16,
    text: String,
    look: Option<Look>,
}

#[derive(Clone, Copy, PartialEq)]
struct Look {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

impl Look {
    fn of(cell: &Cell) -> Self {
        Look { fg: cell.fg, bg: cell.bg, modifier: cell.modifier }
    }

    /// Colours as they are seen: (of the letter, behind it, if anything is).
    fn colors(self) -> (String, Option<String>) {
        let (fg, bg) = (hex(self.fg), hex(self.bg));
        if self.modifier.contains(Modifier::REVERSED) {
            return (bg.unwrap_or(BACKGROUND.into()), Some(fg.unwrap_or(FOREGROUND.into())));
        }
        (fg.unwrap_or(FOREGROUND.into()), bg)
    }
}

fn row(buffer: &Buffer, y: u16, out: &mut String) {
    let area = *buffer.area();
    let mut run = Run::default();
    let mut x = 0;
    while let Some(cell) = buffer.cell((area.x + x, area.y + y)) {
        let look = Look::of(cell);
        let shape = shape(cell.symbol());
        let cells = if shape.is_some_and(Shape::meets_itself) { alike(buffer, x, y) } else { 1 };
        if run.look != Some(look) || shape.is_some() {
            flush(&mut run, y, out);
        }
        if run.cells == 0 {
            run = Run { from: x, look: Some(look), ..Run::default() };
        }
        run.cells += cells;
        run.text += if shape.is_some() { " " } else { cell.symbol() };
        if let Some(shape) = shape {
            flush(&mut run, y, out);
            draw(shape, (x, y), cells, look, out);
        }
        x += cells;
    }
    flush(&mut run, y, out);
}

/// How many cells from here on are the same as this one.
fn alike(buffer: &Buffer, x: u16, y: u16) -> u16 {
    let at = |x: u16| buffer.cell((buffer.area().x + x, buffer.area().y + y));
    let first = at(x);
    (x..).take_while(|&x| at(x).is_some() && at(x) == first).count() as u16
}

fn flush(run: &mut Run, y: u16, out: &mut String) {
    let Run { from, cells, text, look: Some(look) } = std::mem::take(run) else { return };
    let (fg, bg) = look.colors();
    let (x, top, width) = (f32::from(from) * WIDTH, f32::from(y) * HEIGHT, f32::from(cells) * WIDTH);
    if let Some(bg) = bg {
        // A little wider than it is, so that no seam shows between two of them.
        let _ = writeln!(
            out,
            r#"<rect x="{x:.1}" y="{top:.1}" width="{:.1}" height="{HEIGHT:.1}" fill="{bg}"/>"#,
            width + 0.2
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let mut attributes = String::new();
    for (modifier, attribute) in [
        (Modifier::BOLD, r#" font-weight="bold""#),
        (Modifier::ITALIC, r#" font-style="italic""#),
        (Modifier::UNDERLINED, r#" text-decoration="underline""#),
        (Modifier::DIM, r#" opacity="0.6""#),
    ] {
        if look.modifier.contains(modifier) {
            attributes += attribute;
        }
    }
    // Blanks move the start of what follows instead: some renderers drop or collapse them.
    let mut column = 0;
    for word in text.split_inclusive("  ") {
        let cells = Span::raw(word).width() as u16;
        let blanks = word.chars().take_while(|c| *c == ' ').count() as u16;
        let trimmed = word.trim();
        if !trimmed.is_empty() {
            let start = f32::from(from + column + blanks) * WIDTH;
            let length = Span::raw(trimmed).width() as f32 * WIDTH;
            let _ = writeln!(
                out,
                r#"<text x="{start:.1}" y="{:.1}" textLength="{length:.1}" lengthAdjust="spacingAndGlyphs" fill="{fg}"{attributes}>{}</text>"#,
                top + BASELINE,
                escape(trimmed)
            );
        }
        column += cells;
    }
}

/// Parts of a cell, in eighths: (x, y, width, height), and how much of it is inked.
#[derive(Clone, Copy)]
struct Shape(f32, f32, f32, f32, f32);

/// What a block or a line fills; `None` for letters.
fn shape(symbol: &str) -> Option<Shape> {
    let c = symbol.chars().next()?;
    let eighths = |first: char| (c as u32 - first as u32) as f32;
    Some(match c {
        '▁'..='█' => {
            let height = eighths('▁') + 1.0;
            Shape(0.0, 8.0 - height, 8.0, height, 1.0)
        }
        '▉'..='▏' => Shape(0.0, 0.0, 7.0 - eighths('▉'), 8.0, 1.0),
        '░' => Shape(0.0, 0.0, 8.0, 8.0, 0.3),
        '▒' => Shape(0.0, 0.0, 8.0, 8.0, 0.55),
        '▓' => Shape(0.0, 0.0, 8.0, 8.0, 0.8),
        '─' => Shape(0.0, 3.8, 8.0, 0.45, 1.0),
        '│' => Shape(3.6, 0.0, 0.9, 8.0, 1.0),
        '▪' => Shape(2.0, 3.0, 4.0, 2.0, 1.0),
        _ => return None,
    })
}

impl Shape {
    /// Side by side they are one.
    fn meets_itself(self) -> bool {
        self.2 == 8.0
    }
}

fn draw(Shape(left, top, width, height, ink): Shape, (x, y): (u16, u16), cells: u16, look: Look, out: &mut String) {
    let dim = if look.modifier.contains(Modifier::DIM) { 0.6 } else { 1.0 };
    let _ = writeln!(
        out,
        r#"<rect x="{:.2}" y="{:.2}" width="{:.2}" height="{:.2}" fill="{}" opacity="{:.2}"/>"#,
        f32::from(x) * WIDTH + left / 8.0 * WIDTH,
        f32::from(y) * HEIGHT + top / 8.0 * HEIGHT,
        f32::from(cells - 1) * WIDTH + width / 8.0 * WIDTH,
        height / 8.0 * HEIGHT,
        look.colors().0,
        ink * dim,
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// `None` for the terminal's own.
fn hex(color: Color) -> Option<String> {
    Some(match color {
        Color::Reset => return None,
        Color::Rgb(r, g, b) => format!("#{r:02x}{g:02x}{b:02x}"),
        Color::Black => "#000000".into(),
        Color::White => "#ffffff".into(),
        Color::Gray => "#b0b0b0".into(),
        Color::DarkGray => "#707070".into(),
        Color::Red | Color::LightRed => "#d55e00".into(),
        Color::Green | Color::LightGreen => "#009e73".into(),
        Color::Yellow | Color::LightYellow => "#f0e442".into(),
        Color::Blue | Color::LightBlue => "#0072b2".into(),
        Color::Magenta | Color::LightMagenta => "#cc79a7".into(),
        Color::Cyan | Color::LightCyan => "#56b4e9".into(),
        // The screen is drawn in true colour; no palette index gets here.
        Color::Indexed(_) => FOREGROUND.into(),
    })
}
