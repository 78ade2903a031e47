//! Functions of the kernel, of its modules and of BPF programs, as `/proc/kallsyms` lists them: sorted by address, without
//! sizes.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// Lines beyond this are not read; distributions' kernels have some 200 000, a third of them data.
const MAX_SYMBOLS: usize = 4_000_000;
/// Bytes of names beyond this are not kept.
const MAX_TEXT: usize = 128 << 20;
/// No function is longer: behind the last one there is something else.
const MAX_BYTES: u64 = 1 << 20;
/// No BPF program is longer than this once it is compiled, as far as anybody has seen.
const MAX_BPF_BYTES: u64 = 256 << 10;

/// A function of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFunction<'text> {
    /// As the kernel calls it.
    pub name: &'text str,
    /// Where it begins.
    pub start: u64,
    /// Made at run time (a BPF program, a trampoline): may be gone, and others may have come.
    pub is_bpf: bool,
}

/// All of them at one moment.
#[derive(Default)]
pub struct KernelSymbols {
    /// (start, where its name begins in `text`, the lowest bit: BPF), by rising start.
    functions: Vec<(u64, u32)>,
    text: Vec<u8>,
}

impl KernelSymbols {
    /// Those of the running kernel; none where it hides them.
    pub fn read() -> Self {
        match File::open("/proc/kallsyms") {
            Ok(file) => Self::parse(BufReader::with_capacity(256 << 10, file)),
            Err(_) => KernelSymbols::default(),
        }
    }

    /// From lines `ADDRESS TYPE NAME`, with `[MODULE]` behind what is of a module. What cannot be understood is passed over.
    pub fn parse(mut lines: impl BufRead) -> Self {
        let mut symbols = KernelSymbols::default();
        let mut line = Vec::new();
        while symbols.functions.len() < MAX_SYMBOLS && symbols.text.len() < MAX_TEXT {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(1..) => {
                    symbols.learn(&line);
                }
                _ => break,
            }
        }
        symbols.functions.shrink_to_fit();
        symbols.text.shrink_to_fit();
        // Of several names at one address the first stays first.
        symbols.functions.sort_by_key(|(start, _)| *start);
        symbols
    }

    fn learn(&mut self, line: &[u8]) -> Option<()> {
        let mut fields = line.split(|byte| byte.is_ascii_whitespace()).filter(|field| !field.is_empty());
        let start = u64::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, 16).ok()?;
        let [b't' | b'T' | b'w' | b'W'] = fields.next()? else { return None };
        let name = fields.next()?;
        if start == 0 || name.contains(&0) || std::str::from_utf8(name).is_err() {
            return None;
        }
        let is_bpf = fields.next() == Some(b"[bpf]");
        let at = u32::try_from(self.text.len()).ok().filter(|at| at >> 31 == 0)?;
        self.functions.push((start, at << 1 | u32::from(is_bpf)));
        self.text.extend_from_slice(name);
        self.text.push(0);
        Some(())
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        self.functions.capacity() * size_of::<(u64, u32)>() + self.text.capacity()
    }

    /// The function that holds an address, as far as can be told.
    pub fn find(&self, address: u64) -> Option<KernelFunction<'_>> {
        let behind = self.functions.partition_point(|(start, _)| *start <= address);
        let (start, _) = *self.functions.get(behind.checked_sub(1)?)?;
        let first = self.functions.partition_point(|(at, _)| *at < start);
        let (_, name) = *self.functions.get(first)?;
        let is_bpf = name & 1 != 0;
        let most = if is_bpf { MAX_BPF_BYTES } else { MAX_BYTES };
        let name = self.text.get((name >> 1) as usize..)?.split(|&byte| byte == 0).next()?;
        (address - start < most).then_some(KernelFunction { name: std::str::from_utf8(name).ok()?, start, is_bpf })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_by_address() {
        let text = "ffffffff81000000 T _text\n\
            ffffffff81000000 T first\n\
            ffffffff81000100 t schedule\n\
            ffffffff81000180 D data\n\
            ffffffff81000200 W weak_one\n\
            ffffffffc0100000 t ext4_read\t[ext4]\n\
            ffffffffc0300000 t bpf_prog_6deef7357e7b4530_watch\t[bpf]\n";
        let symbols = KernelSymbols::parse(text.as_bytes());
        let at = |address| symbols.find(address).map(|found| (found.name, found.start & 0xffff, found.is_bpf));
        assert_eq!(at(0xffff_ffff_8100_0005), Some(("_text", 0, false)), "the first of two names");
        assert_eq!(at(0xffff_ffff_8100_01ff), Some(("schedule", 0x100, false)), "data is no function");
        assert_eq!(at(0xffff_ffff_8100_0200), Some(("weak_one", 0x200, false)));
        assert_eq!(at(0xffff_ffff_c010_0010), Some(("ext4_read", 0, false)));
        assert_eq!(at(0xffff_ffff_c030_0010), Some(("bpf_prog_6deef7357e7b4530_watch", 0, true)));
        assert_eq!(at(0xffff_ffff_c030_0000 + MAX_BPF_BYTES), None);
        assert_eq!(at(0xffff_ffff_8300_0000), None, "too far behind the last");
        assert_eq!((at(0), at(u64::MAX)), (None, None));
    }

    #[test]
    fn hostile_and_hidden_lists() {
        let hidden = "0000000000000000 T schedule\n";
        let odd = "zz T a\n1\n1 T\n1 TT a\n\n\0\n1 T \u{1b}[2J\n99999999999999999999 T b\n2 T \0\n";
        assert!(KernelSymbols::parse(hidden.as_bytes()).find(5).is_none());
        let symbols = KernelSymbols::parse(odd.as_bytes());
        assert_eq!(symbols.find(3).map(|found| found.name), Some("\u{1b}[2J"), "escaping is the screen's job");
        assert_eq!(symbols.functions.len(), 1);
    }

    #[test]
    fn every_function_of_this_kernel_is_found() {
        let text = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        let symbols = KernelSymbols::parse(text.as_bytes());
        let mut checked = 0;
        for line in text.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Ok(start), true) = (u64::from_str_radix(fields[0], 16), "tTwW".contains(fields[1])) else { continue };
            if start == 0 {
                eprintln!("skipped: the kernel hides its addresses");
                return;
            }
            let Some(found) = symbols.find(start) else { panic!("nothing at {start:#x}") };
            assert_eq!(found.start, start, "{line}: {found:?}");
            checked += 1;
        }
        assert!(checked > 10_000 || text.is_empty(), "{checked}");
        println!("{checked} functions, {} bytes", symbols.bytes());
    }
}
