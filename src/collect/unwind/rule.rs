//! Rules: how to find the caller's registers from those of a frame. Rows and page entries, which lead to them.
//!
//! The packed forms are those of `src/bpf/unwind.h`; a test holds the numbers against it.

/// Sizes, as `unwind.h` has them.
pub mod shape {
    /// Bytes of text of a page.
    pub const PAGE_BYTES: u64 = 1 << 10;
    /// Pages of a window.
    pub const WINDOW_PAGES: u32 = 1 << 6;
    /// Page entries of a window: its pages, and where the last one ends.
    pub const WINDOW_ENTRIES: u32 = WINDOW_PAGES + 1;
    /// Bytes of text of a window.
    pub const WINDOW_BYTES: u64 = PAGE_BYTES * WINDOW_PAGES as u64;
    /// Rows of a chunk.
    pub const CHUNK_ROWS: u32 = 1 << 18;
    /// Chunks of all files together.
    pub const CHUNKS: u32 = 64;
    /// Page entries of all files together.
    pub const PAGES: u32 = 1 << 20;
    /// Rules of all files together.
    pub const RULES: u32 = 1 << 16;
    /// Files that have a table at one time, with the two that are reserved.
    pub const FILES: u32 = 1 << 14;
    /// Index of a file that was asked for.
    pub const FILE_ASKED: u32 = 0;
    /// Index of all files that have no table.
    pub const FILE_NONE: u32 = 1;
    /// Offset of the frame pointer in an x86-64 `ucontext`.
    pub const UC_FP: u64 = 120;
    /// Offset of the stack pointer in it.
    pub const UC_SP: u64 = 160;
    /// Offset of the program counter in it.
    pub const UC_PC: u64 = 168;
}

/// Where the caller's stack pointer (the canonical frame address) is. The caller's pc lies at CFA - 8, where nothing else is
/// said. Registers have DWARF's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// No table covers this: the frame pointer may lead on.
    None,
    /// Nothing called this: the stack is complete.
    End,
    /// SP + offset.
    Sp(i32),
    /// FP + offset.
    Fp(i32),
    /// An entry of the procedure linkage table: SP + 8, and 8 more from this many bytes on, of 16.
    Plt(u8),
    /// `*(SP + at) + add`.
    SpDeref {
        /// Bytes above SP.
        at: i16,
        /// Bytes above what lies there.
        add: i16,
    },
    /// `*(FP + at) + add`.
    FpDeref {
        /// Bytes above FP.
        at: i16,
        /// Bytes above what lies there.
        add: i16,
    },
    /// Where a signal handler returns to: pc, SP and FP lie in the `ucontext` this many bytes above SP.
    Signal(i32),
    /// A register + offset (24 bits); known in the innermost frame only.
    Register {
        /// Its number.
        register: u8,
        /// Bytes above what it holds.
        offset: i32,
    },
    /// SP + offset (24 bits), and the caller's pc is in a register; known in the innermost frame only.
    PcInRegister {
        /// Its number.
        register: u8,
        /// Bytes above SP.
        offset: i32,
    },
    /// `*(SP + at + 8 * register) + add`; known in the innermost frame only.
    SpIndexDeref {
        /// Its number.
        register: u8,
        /// Bytes above SP.
        at: u8,
        /// Bytes above what lies there.
        add: i16,
    },
    /// Something that none of these can say.
    Unsupported,
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fp {
    /// Not saved: it is the present one.
    Same,
    /// `*(CFA + offset)`.
    AtCfa(i16),
    /// `*(SP + offset)`, SP being that of the frame.
    AtSp(i16),
    /// `*(FP + offset)`.
    AtFp(i16),
    /// Nowhere.
    Lost,
}

/// How to step from a frame to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The caller's stack pointer.
    pub cfa: Cfa,
    /// The caller's frame pointer.
    pub fp: Fp,
}

const OFFSET_24: std::ops::RangeInclusive<i32> = -(1 << 23)..=(1 << 23) - 1;

impl Rule {
    /// No table here.
    pub const NONE: Rule = Rule { cfa: Cfa::None, fp: Fp::Same };
    /// The outermost function.
    pub const END: Rule = Rule { cfa: Cfa::End, fp: Fp::Same };
    /// A rule that cannot be said.
    pub const UNSUPPORTED: Rule = Rule { cfa: Cfa::Unsupported, fp: Fp::Same };

    /// `struct unwind_rule`, as a little-endian number. An offset that does not fit makes it [`Rule::UNSUPPORTED`].
    pub fn pack(self) -> u64 {
        let both = |at: i16, add: i16| i32::from(at) & 0xffff | i32::from(add) << 16;
        let with = |register: u8, offset: i32| offset << 8 | i32::from(register);
        let (cfa, cfa_off) = match self.cfa {
            Cfa::None => (0, 0),
            Cfa::End => (1, 0),
            Cfa::Sp(offset) => (2, offset),
            Cfa::Fp(offset) => (3, offset),
            Cfa::Plt(from) => (4, i32::from(from)),
            Cfa::SpDeref { at, add } => (5, both(at, add)),
            Cfa::FpDeref { at, add } => (6, both(at, add)),
            Cfa::Signal(offset) => (7, offset),
            Cfa::Register { register, offset } if OFFSET_24.contains(&offset) => (8, with(register, offset)),
            Cfa::PcInRegister { register, offset } if OFFSET_24.contains(&offset) => (9, with(register, offset)),
            Cfa::SpIndexDeref { register, at, add } => {
                let [first, second] = add.to_le_bytes();
                (11, i32::from_le_bytes([register, at, first, second]))
            }
            Cfa::Unsupported | Cfa::Register { .. } | Cfa::PcInRegister { .. } => (10, 0),
        };
        let (fp, fp_off) = match self.fp {
            Fp::Same => (0, 0),
            Fp::AtCfa(offset) => (1, offset),
            Fp::AtSp(offset) => (2, offset),
            Fp::AtFp(offset) => (3, offset),
            Fp::Lost => (4, 0),
        };
        let [a, b] = fp_off.to_le_bytes();
        let [c, d, e, f] = cfa_off.to_le_bytes();
        u64::from_le_bytes([cfa, fp, a, b, c, d, e, f])
    }

    /// The rule that [`Rule::pack`] packed; one that it never makes reads as [`Rule::UNSUPPORTED`].
    pub fn unpack(packed: u64) -> Rule {
        let [cfa, fp, a, b, c, d, e, f] = packed.to_le_bytes();
        let (fp_off, cfa_off) = (i16::from_le_bytes([a, b]), i32::from_le_bytes([c, d, e, f]));
        let (at, add) = (i16::from_le_bytes([c, d]), i16::from_le_bytes([e, f]));
        let (register, offset) = (c, cfa_off >> 8);
        let cfa = match cfa {
            0 => Cfa::None,
            1 => Cfa::End,
            2 => Cfa::Sp(cfa_off),
            3 => Cfa::Fp(cfa_off),
            4 => Cfa::Plt(c),
            5 => Cfa::SpDeref { at, add },
            6 => Cfa::FpDeref { at, add },
            7 => Cfa::Signal(cfa_off),
            8 => Cfa::Register { register, offset },
            9 => Cfa::PcInRegister { register, offset },
            11 => Cfa::SpIndexDeref { register, at: d, add },
            _ => return Rule::UNSUPPORTED,
        };
        let fp = match fp {
            0 => Fp::Same,
            1 => Fp::AtCfa(fp_off),
            2 => Fp::AtSp(fp_off),
            3 => Fp::AtFp(fp_off),
            _ => Fp::Lost,
        };
        Rule { cfa, fp }
    }
}

/// From which pc of a page on which rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(pub u32);

impl Row {
    /// `pc` is the offset in the page, `rule` an index.
    pub fn new(pc: u16, rule: u16) -> Row {
        Row(u32::from(rule) << 16 | u32::from(pc))
    }

    /// Offset in the page.
    pub fn pc(self) -> u16 {
        self.0 as u16
    }

    /// Index of the rule.
    pub fn rule(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Where the rows of a page begin, and those of the page before it end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEntry(pub u32);

impl PageEntry {
    /// The window of this page is not filled.
    pub const MISSING: PageEntry = PageEntry(0x8000_0000);
    /// Added to [`PageEntry::MISSING`] by who asked for it.
    pub const ASKED: u32 = 0x4000_0000;

    /// `row` is the place in the chunk.
    pub fn new(chunk: u32, row: u32) -> PageEntry {
        PageEntry(chunk * shape::CHUNK_ROWS + row)
    }

    /// (chunk, row in it), unless it is missing.
    pub fn place(self) -> Option<(u32, u32)> {
        let missing = self.0 & Self::MISSING.0 != 0;
        (!missing).then_some((self.0 / shape::CHUNK_ROWS, self.0 % shape::CHUNK_ROWS))
    }
}

/// How a frame was found; `enum unwind_from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FoundBy {
    /// The innermost: the pc itself.
    Regs = 0,
    /// By a table.
    Table = 1,
    /// What a signal interrupted: an exact pc, no return address.
    Signal = 2,
    /// By the frame pointer, where no table covers the pc.
    FramePointer = 3,
    /// By a known instruction sequence in code made at run time.
    Thunk = 4,
    /// It looks like a return address.
    Guess = 5,
}

/// Why a stack ends where it ends; `enum unwind_stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stop {
    /// It is complete.
    End = 0,
    /// It is deeper than can be kept.
    Truncated = 1,
    /// The table of a file, or a window of it, is not there yet.
    NoTable = 2,
    /// No table covers the pc, and the frame pointer is none.
    FramePointer = 3,
    /// The return address is not in an executable mapping.
    NotCode = 4,
    /// A rule that the tables cannot say.
    Unsupported = 5,
    /// The rule needs a register that is not known here.
    RegisterLost = 6,
    /// The stack could not be read there.
    Read = 7,
    /// The caller's frame would not lie above this one.
    Stuck = 8,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Numbers in `unwind.h`, by name.
    fn header() -> HashMap<&'static str, u64> {
        let text = include_str!("../../bpf/unwind.h");
        let mut numbers = HashMap::new();
        for line in text.lines() {
            let line = line.trim().trim_start_matches("#define ");
            let line = line.split("/*").next().unwrap();
            let (name, value) = match line.split_once(" = ") {
                Some((name, value)) => (name, value),
                None => line.split_once(' ').unwrap_or((line, "")),
            };
            let value = value.trim().trim_end_matches([',', 'u']).trim_matches(['(', ')']);
            let number = match value.split_once(" << ") {
                Some((one, shift)) => {
                    one.parse().ok().zip(shift.parse::<u32>().ok()).map(|(one, by): (u64, _)| one << by)
                }
                None => match value.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(hex, 16).ok(),
                    None => value.parse().ok(),
                },
            };
            if let Some(number) = number.filter(|_| name.starts_with("UNWIND_")) {
                numbers.insert(name, number);
            }
        }
        numbers
    }

    #[test]
    fn numbers_are_those_of_the_header() {
        let header = header();
        let is = |name: &str, value: u64| assert_eq!(header.get(name), Some(&value), "{name}");
        is("UNWIND_PAGE_SHIFT", u64::from(shape::PAGE_BYTES.trailing_zeros()));
        is("UNWIND_WINDOW_SHIFT", u64::from(shape::WINDOW_PAGES.trailing_zeros()));
        is("UNWIND_CHUNK_SHIFT", u64::from(shape::CHUNK_ROWS.trailing_zeros()));
        is("UNWIND_CHUNKS", u64::from(shape::CHUNKS));
        is("UNWIND_PAGES", u64::from(shape::PAGES));
        is("UNWIND_RULES", u64::from(shape::RULES));
        is("UNWIND_FILES", u64::from(shape::FILES));
        is("UNWIND_PAGE_MISSING", u64::from(PageEntry::MISSING.0));
        is("UNWIND_PAGE_ASKED", u64::from(PageEntry::ASKED));
        is("UNWIND_FILE_ASKED", u64::from(shape::FILE_ASKED));
        is("UNWIND_FILE_NONE", u64::from(shape::FILE_NONE));
        is("UNWIND_UC_FP", shape::UC_FP);
        is("UNWIND_UC_SP", shape::UC_SP);
        is("UNWIND_UC_PC", shape::UC_PC);
        for (name, value) in [
            ("REGS", FoundBy::Regs),
            ("TABLE", FoundBy::Table),
            ("SIGNAL", FoundBy::Signal),
            ("FP", FoundBy::FramePointer),
            ("THUNK", FoundBy::Thunk),
            ("GUESS", FoundBy::Guess),
        ] {
            is(&format!("UNWIND_FROM_{name}"), value as u64);
        }
        for (name, value) in [
            ("END", Stop::End),
            ("TRUNCATED", Stop::Truncated),
            ("NO_TABLE", Stop::NoTable),
            ("FP", Stop::FramePointer),
            ("NOT_CODE", Stop::NotCode),
            ("UNSUPPORTED", Stop::Unsupported),
            ("REG_LOST", Stop::RegisterLost),
            ("READ", Stop::Read),
            ("STUCK", Stop::Stuck),
        ] {
            is(&format!("UNWIND_STOP_{name}"), value as u64);
        }
    }

    const CFAS: [(&str, Cfa); 12] = [
        ("NONE", Cfa::None),
        ("END", Cfa::End),
        ("SP", Cfa::Sp(-16)),
        ("FP", Cfa::Fp(1 << 30)),
        ("PLT", Cfa::Plt(11)),
        ("SP_DEREF", Cfa::SpDeref { at: -8, add: 8 }),
        ("FP_DEREF", Cfa::FpDeref { at: i16::MAX, add: i16::MIN }),
        ("SIGNAL", Cfa::Signal(0)),
        ("REG", Cfa::Register { register: 10, offset: -(1 << 23) }),
        ("RA_REG", Cfa::PcInRegister { register: 5, offset: (1 << 23) - 1 }),
        ("UNSUPPORTED", Cfa::Unsupported),
        ("SP_INDEX_DEREF", Cfa::SpIndexDeref { register: 9, at: 255, add: -8 }),
    ];
    const FPS: [(&str, Fp); 5] = [
        ("SAME", Fp::Same),
        ("AT_CFA", Fp::AtCfa(-16)),
        ("AT_SP", Fp::AtSp(i16::MAX)),
        ("AT_FP", Fp::AtFp(i16::MIN)),
        ("LOST", Fp::Lost),
    ];

    #[test]
    fn each_kind_has_the_number_of_the_header() {
        let header = header();
        for (name, cfa) in CFAS {
            let packed = Rule { cfa, fp: Fp::Same }.pack();
            assert_eq!(header.get(format!("UNWIND_CFA_{name}").as_str()), Some(&(packed & 0xff)), "{name}");
        }
        for (name, fp) in FPS {
            let packed = Rule { cfa: Cfa::Sp(8), fp }.pack();
            assert_eq!(header.get(format!("UNWIND_FP_{name}").as_str()), Some(&(packed >> 8 & 0xff)), "{name}");
        }
        assert_eq!(header.get("UNWIND_CFA_KINDS"), Some(&(CFAS.len() as u64)));
        assert_eq!(header.get("UNWIND_FP_KINDS"), Some(&(FPS.len() as u64)));
    }

    #[test]
    fn packing_keeps_all() {
        for (_, cfa) in CFAS {
            for (_, fp) in FPS {
                let rule = Rule { cfa, fp };
                let want = if cfa == Cfa::Unsupported { Rule::UNSUPPORTED } else { rule };
                assert_eq!(Rule::unpack(rule.pack()), want);
            }
        }
        assert_eq!(Rule::NONE.pack(), 0, "an empty map says nothing");
        assert_eq!(Rule { cfa: Cfa::Sp(0x1234_5678), fp: Fp::AtCfa(-2) }.pack(), 0x1234_5678_fffe_0102);
        assert_eq!(Rule { cfa: Cfa::SpDeref { at: -2, add: 8 }, fp: Fp::Same }.pack(), 0x0008_fffe_0000_0005);
    }

    #[test]
    fn what_does_not_fit_is_unsupported() {
        let far = Rule { cfa: Cfa::Register { register: 10, offset: 1 << 23 }, fp: Fp::Same };
        assert_eq!(Rule::unpack(far.pack()), Rule::UNSUPPORTED);
        assert_eq!(Rule::unpack(0xff), Rule::UNSUPPORTED);
    }

    #[test]
    fn rows_and_page_entries() {
        let row = Row::new(1023, 65535);
        assert_eq!((row.pc(), row.rule(), row.0), (1023, 65535, 0xffff_03ff));
        assert_eq!(PageEntry::new(63, 5).place(), Some((63, 5)));
        assert_eq!(PageEntry::new(63, 5).0, 63 << 18 | 5);
        assert_eq!(PageEntry::MISSING.place(), None);
        assert_eq!(PageEntry(PageEntry::MISSING.0 | PageEntry::ASKED).place(), None);
    }
}
