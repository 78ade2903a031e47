//! A stack as the kernel side takes it: two lists of words, and how the walk of the user part went.

use super::unwind::Stop;
use crate::tick::{FoundBy, StackEnd};

/// A stack that was taken. Both parts are leaf first; zeroes at the end of a part are allowed.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Addresses of a walk by frame pointers, words (see [`Word`]) of one by tables.
    pub user: &'a [u64],
    /// Addresses.
    pub kernel: &'a [u64],
    /// How the user part was walked, and how that ended.
    pub walked: Walked,
    /// Which program of its process this is of: addresses of another one mean other code. 0: not known.
    pub image: u64,
}

/// How the user part was walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// By frame pointers, which the kernel follows for us.
    FramePointers {
        /// A negative errno when it could not be, 0 when it could or there is no user part.
        error: i32,
        /// The limit of depth was met.
        truncated: bool,
    },
    /// By tables.
    Tables(Stop),
}

impl Walked {
    /// From `stop` of a record; a number that we do not know is what cannot be followed.
    pub fn by_tables(stop: u8) -> Walked {
        const STOPS: [Stop; 9] = [
            Stop::End,
            Stop::Truncated,
            Stop::NoTable,
            Stop::FramePointer,
            Stop::NotCode,
            Stop::Unsupported,
            Stop::RegisterLost,
            Stop::Read,
            Stop::Stuck,
        ];
        Walked::Tables(STOPS.get(usize::from(stop)).copied().unwrap_or(Stop::Unsupported))
    }
}

/// What it means on the screen that a walk by tables stopped.
pub fn end_of(stop: Stop) -> StackEnd {
    match stop {
        Stop::End => StackEnd::Complete,
        Stop::Truncated => StackEnd::Truncated,
        Stop::NoTable => StackEnd::NoTable,
        Stop::FramePointer => StackEnd::Broken,
        Stop::NotCode => StackEnd::NotCode,
        Stop::Unsupported | Stop::RegisterLost => StackEnd::NoRule,
        Stop::Read => StackEnd::Unreadable(libc::EFAULT),
        Stop::Stuck => StackEnd::Stuck,
    }
}

/// Where a frame is, as its word says. Of a return address it is the byte before it, which lies within the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the address space of the process.
    Address(u64),
    /// In a file that has a table.
    File {
        /// Which.
        tag: Tag,
        /// Where in it.
        offset: u64,
    },
}

/// A file that has a table, as long as its slot is not given to another: the index of the slot and the low bits of how often
/// it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u32);

impl Tag {
    /// Of a slot.
    pub fn new(index: u32, generation: u32) -> Tag {
        Tag(index & ((1 << FILE_BITS) - 1) | (generation & GENERATION_MASK) << FILE_BITS)
    }
}

/// A frame of a walk by tables; the `ips` of `frames_rec` in `src/bpf/sberf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

const FROM_SHIFT: u32 = 60;
const IN_FILE: u64 = 1 << 59;
const FILE_SHIFT: u32 = 40;
const FILE_BITS: u32 = 14;
const GENERATION_MASK: u32 = 31;

impl Word {
    /// Of a frame.
    pub fn new(found: FoundBy, at: Where) -> Word {
        let from = match found {
            FoundBy::Registers => 0,
            FoundBy::Table => 1,
            FoundBy::Signal => 2,
            FoundBy::FramePointer => 3,
            FoundBy::Thunk => 4,
            FoundBy::Guess => 5,
        };
        let at = match at {
            Where::Address(address) => address & (IN_FILE - 1),
            Where::File { tag: Tag(tag), offset } => {
                IN_FILE | u64::from(tag) << FILE_SHIFT | offset & ((1 << FILE_SHIFT) - 1)
            }
        };
        Word(from << FROM_SHIFT | at)
    }

    /// Where the frame is.
    pub fn at(self) -> Where {
        if self.0 & IN_FILE == 0 {
            return Where::Address(self.0 & (IN_FILE - 1));
        }
        let tag = (self.0 & (IN_FILE - 1)) >> FILE_SHIFT;
        Where::File { tag: Tag(tag as u32), offset: self.0 & ((1 << FILE_SHIFT) - 1) }
    }

    /// How it was found.
    pub fn found(self) -> FoundBy {
        match self.0 >> FROM_SHIFT {
            0 => FoundBy::Registers,
            1 => FoundBy::Table,
            2 => FoundBy::Signal,
            3 => FoundBy::FramePointer,
            4 => FoundBy::Thunk,
            _ => FoundBy::Guess,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_what_they_are_made_of() {
        let tag = Tag::new(16_383, 33);
        assert_eq!(tag, Tag::new(16_383, 1), "the low bits of a generation");
        assert_ne!(tag, Tag::new(16_383, 2));
        let places = [Where::Address(0x7fff_ffff_f000), Where::File { tag, offset: (1 << 40) - 1 }];
        use FoundBy::*;
        for found in [Registers, Table, Signal, FramePointer, Thunk, Guess] {
            for at in places {
                let word = Word::new(found, at);
                assert_eq!((word.found(), word.at()), (found, at));
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_header() {
        let header = include_str!("../bpf/sberf.h");
        for line in [
            format!("#define FROM_SHIFT {FROM_SHIFT}\n"),
            "#define FRAME_IN_FILE (1ull << 59)\n".to_owned(),
            format!("#define FRAME_FILE_SHIFT {FILE_SHIFT}\n"),
            format!("#define FRAME_FILE_BITS {FILE_BITS}\n"),
            format!("#define FRAME_GENERATION_SHIFT {}\n", FILE_SHIFT + FILE_BITS),
            format!("#define FRAME_GENERATION_MASK {GENERATION_MASK}\n"),
        ] {
            assert!(header.contains(&line), "{line}");
        }
    }

    #[test]
    fn every_stop_is_known() {
        let header = include_str!("../bpf/unwind.h");
        let known = header.lines().filter(|line| line.trim().starts_with("UNWIND_STOP_")).count() - 1;
        let stops: Vec<_> = (0..known as u8).map(Walked::by_tables).collect();
        assert!(stops.iter().enumerate().all(|(at, stop)| !stops[..at].contains(stop)), "{stops:?}");
        assert_eq!(Walked::by_tables(known as u8), Walked::Tables(Stop::Unsupported));
    }
}
