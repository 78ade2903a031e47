//! ELF images made by hand: a few functions, each with the call frame information that a test wants.

/// Instructions of call frame information; DWARF 5, 7.24.
pub mod cfa {
    fn uleb(mut number: u64, into: &mut Vec<u8>) {
        while number >= 0x80 {
            into.push(number as u8 | 0x80);
            number >>= 7;
        }
        into.push(number as u8);
    }

    fn with(opcode: u8, operands: &[u64]) -> Vec<u8> {
        let mut bytes = vec![opcode];
        operands.iter().for_each(|&operand| uleb(operand, &mut bytes));
        bytes
    }

    fn block(mut head: Vec<u8>, expression: &[u8]) -> Vec<u8> {
        uleb(expression.len() as u64, &mut head);
        [head.as_slice(), expression].concat()
    }

    pub fn advance(by: u32) -> Vec<u8> {
        match by {
            0..64 => vec![0x40 | by as u8],
            _ => [&[0x04][..], &by.to_le_bytes()].concat(),
        }
    }

    pub fn def(register: u64, offset: u64) -> Vec<u8> {
        with(0x0c, &[register, offset])
    }

    pub fn def_register(register: u64) -> Vec<u8> {
        with(0x0d, &[register])
    }

    pub fn def_offset(offset: u64) -> Vec<u8> {
        with(0x0e, &[offset])
    }

    pub fn def_expression(expression: &[u8]) -> Vec<u8> {
        block(vec![0x0f], expression)
    }

    /// Saved at CFA - 8 · `words`.
    pub fn saved(register: u8, words: u64) -> Vec<u8> {
        with(0x80 | register, &[words])
    }

    pub fn undefined(register: u64) -> Vec<u8> {
        with(0x07, &[register])
    }

    pub fn in_register(register: u64, other: u64) -> Vec<u8> {
        with(0x09, &[register, other])
    }

    pub fn expression(register: u64, expression: &[u8]) -> Vec<u8> {
        block(with(0x10, &[register]), expression)
    }

    pub fn remember() -> Vec<u8> {
        vec![0x0a]
    }

    pub fn restore_state() -> Vec<u8> {
        vec![0x0b]
    }

    /// What no version of DWARF has.
    pub fn nonsense() -> Vec<u8> {
        vec![0x3f]
    }
}

pub const RBP: u64 = 6;
pub const RSP: u64 = 7;
pub const RA: u64 = 16;

/// What many functions share.
#[derive(Clone)]
pub struct Cie {
    pub augmentation: &'static str,
    pub return_register: u8,
    pub instructions: Vec<u8>,
}

impl Default for Cie {
    fn default() -> Self {
        let instructions = [cfa::def(RSP, 8), cfa::saved(RA as u8, 1)].concat();
        Cie { augmentation: "zR", return_register: RA as u8, instructions }
    }
}

#[derive(Clone)]
pub struct Function {
    /// Bytes from the start of the code.
    pub start: u64,
    pub bytes: u32,
    /// Which of the image's.
    pub cie: usize,
    pub instructions: Vec<u8>,
}

pub fn function(start: u64, bytes: u32, instructions: &[Vec<u8>]) -> Function {
    Function { start, bytes, cie: 0, instructions: instructions.concat() }
}

/// How its call frame information can be found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// `.eh_frame_hdr` with a table.
    Sorted,
    /// `.eh_frame_hdr` without one.
    Unsorted,
    /// By the section header of `.eh_frame`.
    Section,
}

#[derive(Clone)]
pub struct Made {
    pub program: bool,
    /// Bytes from the start of the code.
    pub entry: Option<u64>,
    pub code: Vec<u8>,
    pub code_offset: u64,
    pub code_address: u64,
    pub cies: Vec<Cie>,
    pub functions: Vec<Function>,
    pub found: Found,
    /// Instead of what follows from `functions`.
    pub eh_frame: Option<Vec<u8>>,
}

/// Code of that many bytes, none of which means anything.
pub fn image(bytes: usize, functions: &[Function]) -> Made {
    Made {
        program: false,
        entry: None,
        code: vec![0x90; bytes],
        code_offset: 0x10000,
        code_address: 0x41_2000,
        cies: vec![Cie::default()],
        functions: functions.to_vec(),
        found: Found::Sorted,
        eh_frame: None,
    }
}

const BASE: u64 = 0x40_0000;
const HDR: u64 = 0x200;

impl Made {
    /// File offset of a place in the code.
    pub fn offset(&self, into: u64) -> u64 {
        self.code_offset + into
    }

    /// `.eh_frame` at this address, and where each FDE starts in it.
    fn frames(&self, address: u64) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = Vec::new();
        let mut entry = |body: &[u8]| {
            let start = bytes.len();
            let padded = (body.len() + 4).next_multiple_of(8);
            bytes.extend((padded as u32 - 4).to_le_bytes());
            bytes.extend(body);
            bytes.resize(start + padded, 0);
            start as u64
        };
        let mut cies = Vec::new();
        for cie in &self.cies {
            let augmentation = cie.augmentation.as_bytes();
            let head = [&[0, 0, 0, 0, 1], augmentation, &[0, 1, 0x78, cie.return_register, 1, 0x1b]].concat();
            cies.push(entry(&[head, cie.instructions.clone()].concat()));
        }
        let mut places = Vec::new();
        let mut at = cies.last().map_or(0, |last| {
            let cie = self.cies.last().expect("one for each place");
            last + (15 + cie.augmentation.len() as u64 + cie.instructions.len() as u64).next_multiple_of(8)
        });
        for function in &self.functions {
            let pc = self.code_address + function.start;
            let relative = pc.wrapping_sub(address + at + 8) as u32;
            let to_cie = (at + 4 - cies[function.cie]) as u32;
            let head = [to_cie.to_le_bytes(), relative.to_le_bytes(), function.bytes.to_le_bytes()].concat();
            let place = entry(&[head, vec![0], function.instructions.clone()].concat());
            assert_eq!(place, at, "the address of an FDE is part of it");
            places.push(place);
            at = place + (17 + function.instructions.len() as u64).next_multiple_of(8);
        }
        bytes.extend([0; 4]);
        (bytes, places)
    }

    pub fn build(&self) -> Vec<u8> {
        let frames_at = HDR + 12 + 8 * self.functions.len() as u64;
        let (frames, places) = self.frames(BASE + frames_at);
        let mut table: Vec<(u64, u64)> =
            self.functions.iter().zip(&places).map(|(function, place)| (function.start, frames_at + place)).collect();
        table.sort();
        let frames = self.eh_frame.clone().unwrap_or(frames);
        let mut file = vec![0; HDR as usize];
        let sorted = self.found == Found::Sorted;
        file.extend([1, 0x1b, if sorted { 3 } else { 0xff }, if sorted { 0x3b } else { 0xff }]);
        file.extend((frames_at as u32 - (HDR as u32 + 4)).to_le_bytes());
        file.extend((table.len() as u32).to_le_bytes());
        for (start, place) in table {
            file.extend((self.code_address + start).wrapping_sub(BASE + HDR).to_le_bytes()[..4].iter());
            file.extend(place.wrapping_sub(HDR).to_le_bytes()[..4].iter());
        }
        file.extend(&frames);
        let read_only = file.len() as u64;
        assert!(read_only <= self.code_offset, "the code lies behind");
        file.resize(self.code_offset as usize, 0);
        file.extend(&self.code);
        let sections = self.sections(frames_at, frames.len() as u64, &mut file);
        self.headers(read_only, sections, &mut file);
        file
    }

    /// Names, and the headers of `.eh_frame` and of the names.
    fn sections(&self, frames_at: u64, frames: u64, file: &mut Vec<u8>) -> u64 {
        let names = file.len() as u64;
        file.extend(b"\0.eh_frame\0\0\0\0\0\0");
        let start = file.len() as u64;
        let mut header = |name: u32, kind: u32, address: u64, offset: u64, bytes: u64| {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            [2, address, offset, bytes, 0, 1, 0].iter().for_each(|number: &u64| file.extend(number.to_le_bytes()));
        };
        header(0, 0, 0, 0, 0);
        header(1, 1, BASE + frames_at, frames_at, frames);
        header(0, 3, 0, names, 16);
        start
    }

    fn headers(&self, read_only: u64, sections: u64, file: &mut [u8]) {
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        head.extend([if self.program { 2 } else { 3 }, 0, 62, 0, 1, 0, 0, 0]);
        let entry = self.entry.map_or(0, |entry| self.code_address + entry);
        [entry, 64, sections].iter().for_each(|number| head.extend(number.to_le_bytes()));
        let segments: u16 = if self.found == Found::Section { 2 } else { 3 };
        head.extend([0; 4]);
        [64, 56, segments, 64, 3, 2].iter().for_each(|number| head.extend(number.to_le_bytes()));
        let mut segment = |kind: u32, flags: u32, offset: u64, address: u64, bytes: u64| {
            head.extend(kind.to_le_bytes());
            head.extend(flags.to_le_bytes());
            [offset, address, address, bytes, bytes, 4096].iter().for_each(|number| head.extend(number.to_le_bytes()));
        };
        segment(1, 4, 0, BASE, read_only);
        segment(1, 5, self.code_offset, self.code_address, self.code.len() as u64);
        if self.found != Found::Section {
            segment(0x6474_e550, 4, HDR, BASE + HDR, read_only - HDR);
        }
        file[..head.len()].copy_from_slice(&head);
    }
}

/// An image with this `.eh_frame`, which may be anything; `None` if it is too long to be worth a try.
pub fn around(eh_frame: &[u8]) -> Option<Vec<u8>> {
    let made = Made { found: Found::Unsorted, eh_frame: Some(eh_frame.to_vec()), ..image(0x2000, &[]) };
    (eh_frame.len() < 0x8000).then(|| made.build())
}

impl Made {
    /// Its `.eh_frame`, as [`around`] puts it into an image.
    pub fn frames_alone(&self) -> Vec<u8> {
        self.frames(BASE + HDR + 12).0
    }
}
