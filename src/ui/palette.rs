//! Palettes: colours by role, as data. The shipped ones are in `assets/palettes`.

use std::collections::BTreeMap;

use ratatui::style::Color;
use serde::Deserialize;

use super::theme::{Background, Depth};

/// What a colour is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the keys of the palette files")]
pub enum Role {
    User,
    Kernel,
    Runnable,
    Disk,
    Lock,
    Net,
    Pipe,
    Timer,
    Poll,
    Fault,
    Stopped,
    Other,
    Jit,
    Inlined,
    Note,
    Dim,
    Accent,
    Header,
    Border,
    Selected,
    Match,
    Warn,
    Alert,
}

/// One colour at each depth.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "(String, String)")]
struct Ink {
    rgb: (u8, u8, u8),
    ansi: Color,
}

impl TryFrom<(String, String)> for Ink {
    type Error = String;
    fn try_from((rgb, ansi): (String, String)) -> Result<Self, String> {
        let digits = rgb.strip_prefix('#').filter(|digits| digits.len() == 6);
        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let value = value.ok_or_else(|| format!("colour {rgb:?}: want # and six hexadecimal digits"))?;
        let ansi = ansi.parse().map_err(|_| format!("colour {ansi:?}: want one of the sixteen, as \"lightblue\""))?;
        Ok(Ink { rgb: ((value >> 16) as u8, (value >> 8) as u8, value as u8), ansi })
    }
}

impl Ink {
    fn at(self, depth: Depth) -> Option<Color> {
        let (r, g, b) = self.rgb;
        match depth {
            Depth::None => None,
            Depth::Ansi16 => Some(self.ansi),
            Depth::Ansi256 => Some(Color::Indexed(nearest_256(r, g, b))),
            Depth::True => Some(Color::Rgb(r, g, b)),
        }
    }

    /// Perceived brightness, 0…255 (ITU-R BT.601).
    fn luma(self) -> u32 {
        let (r, g, b) = self.rgb;
        (299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)) / 1000
    }
}

/// Colours by role for one background.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Palette {
    ramp: Vec<Ink>,
    #[serde(flatten)]
    roles: BTreeMap<Role, Ink>,
}

#[derive(Deserialize)]
struct Shipped {
    dark: Palette,
    light: Palette,
}

const OKABE_ITO: &str = include_str!("../../assets/palettes/okabe-ito.toml");

impl Palette {
    /// The default.
    pub fn okabe_ito(background: Background) -> Self {
        Palette::parse(OKABE_ITO, background).unwrap_or_default()
    }

    /// A palette file's part for that background. The error names the line and what is wrong with it.
    pub fn parse(toml: &str, background: Background) -> Result<Self, String> {
        let shipped: Shipped = toml::from_str(toml).map_err(|error| error.to_string())?;
        Ok(match background {
            Background::Dark => shipped.dark,
            Background::Light => shipped.light,
        })
    }

    /// `None` where there are no colours, or the palette leaves that role as the terminal has it.
    pub fn color(&self, role: Role, depth: Depth) -> Option<Color> {
        self.roles.get(&role)?.at(depth)
    }

    /// A role's colour as it looks when only `share` of a cell is inked with it; `None` with less than 256 colours.
    pub fn tint(&self, role: Role, share: f64, depth: Depth, background: Background) -> Option<Color> {
        let ink = self.roles.get(&role).filter(|_| depth >= Depth::Ansi256)?;
        let ground = match background {
            Background::Dark => 16.0,
            Background::Light => 255.0,
        };
        let mix = |part: u8| (ground + (f64::from(part) - ground) * share).round() as u8;
        let (r, g, b) = ink.rgb;
        Ink { rgb: (mix(r), mix(g), mix(b)), ansi: ink.ansi }.at(depth)
    }

    /// Black or white, whichever can be read on that role's colour.
    pub fn ink_on(&self, role: Role, depth: Depth) -> Color {
        let dark_ink = self.roles.get(&role).is_none_or(|ink| ink.luma() > 110);
        match (depth, dark_ink) {
            (Depth::True, true) => Color::Rgb(0, 0, 0),
            (Depth::True, false) => Color::Rgb(255, 255, 255),
            (_, true) => Color::Black,
            (_, false) => Color::White,
        }
    }

    /// The colour of a level from 0 to 1.
    pub fn ramp(&self, level: f64, depth: Depth) -> Option<Color> {
        let at = level.clamp(0.0, 1.0) * self.ramp.len().saturating_sub(1) as f64;
        let low = *self.ramp.get(at as usize)?;
        if depth == Depth::Ansi16 {
            return self.ramp.get(at.round() as usize)?.at(depth);
        }
        let high = self.ramp.get(at as usize + 1).copied().unwrap_or(low);
        let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * at.fract()).round() as u8;
        let rgb = (mix(low.rgb.0, high.rgb.0), mix(low.rgb.1, high.rgb.1), mix(low.rgb.2, high.rgb.2));
        Ink { rgb, ansi: low.ansi }.at(depth)
    }
}

/// The nearest of xterm's 6×6×6 cube and its greys.
fn nearest_256(r: u8, g: u8, b: u8) -> u8 {
    const STEPS: [i32; 6] = [0, 95, 135, 175, 215, 255];
    let rgb = [i32::from(r), i32::from(g), i32::from(b)];
    let near = |value: i32| (0..6).min_by_key(|&step| (STEPS[step] - value).abs()).unwrap_or(0);
    let distance = |other: [i32; 3]| -> i32 { rgb.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum() };
    let [cr, cg, cb] = rgb.map(near);
    let grey = ((rgb.iter().sum::<i32>() / 3 - 8 + 5) / 10).clamp(0, 23);
    if distance([8 + 10 * grey; 3]) < distance([STEPS[cr], STEPS[cg], STEPS[cb]]) {
        232 + grey as u8
    } else {
        (16 + 36 * cr + 6 * cg + cb) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_palette_has_every_role_on_both_grounds() {
        for background in [Background::Dark, Background::Light] {
            let palette = Palette::parse(OKABE_ITO, background).unwrap();
            assert_eq!(palette.roles.len(), Role::Alert as usize + 1);
            assert!(palette.ramp.len() >= 5);
        }
    }

    #[test]
    fn bad_palettes_say_what_is_wrong() {
        let error = Palette::parse(&OKABE_ITO.replace("#2B8CD6", "#2B8C"), Background::Dark).unwrap_err();
        assert!(error.contains("six hexadecimal digits"), "{error}");
        assert!(Palette::parse("", Background::Dark).is_err());
    }

    #[test]
    fn nearest_of_256() {
        assert_eq!(nearest_256(0, 0, 0), 16);
        assert_eq!(nearest_256(255, 255, 255), 231);
        assert_eq!(nearest_256(255, 0, 0), 196);
        assert_eq!(nearest_256(118, 118, 118), 243);
    }
}
