//! Code of the kernel: which of its modules an address lies in, and the page of code it lends to every process.

use rustc_hash::FxHashMap;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::intern::Interner;
use crate::tick::{Module, ModuleId, ModuleKind, Names};

/// How often an address outside of every known module makes us look for new ones.
const BETWEEN_READS: Duration = Duration::from_secs(10);
const MAX_BYTES: u64 = 4 << 20;

/// Loaded kernel modules.
#[derive(Default)]
pub struct KernelModules {
    /// (start, end, name) by rising start.
    loaded: Vec<(u64, u64, String)>,
    read: Option<Instant>,
    ids: FxHashMap<String, ModuleId>,
}

impl KernelModules {
    /// The module that holds an address, `[kernel]` if none does, and whether modules came or went since.
    pub fn module_of(&mut self, address: u64, interner: &mut Interner, names: &mut Names) -> (ModuleId, bool) {
        let mut changed = false;
        let mut name = self.find(address);
        if name.is_none() && self.read.is_none_or(|read| read.elapsed() >= BETWEEN_READS) {
            changed = self.refresh();
            name = self.find(address);
        }
        let path = name.map_or_else(|| "[kernel]".to_owned(), |name| format!("[{name}]"));
        if let Some(&id) = self.ids.get(&path) {
            return (id, changed);
        }
        let module = Module { path: path.clone(), kind: ModuleKind::Kernel, build_id: None };
        let id = interner.module(module, names);
        self.ids.insert(path, id);
        (id, changed)
    }

    fn find(&self, address: u64) -> Option<&str> {
        let behind = self.loaded.partition_point(|(start, ..)| *start <= address);
        let (_, end, name) = self.loaded.get(behind.checked_sub(1)?)?;
        (address < *end).then_some(name)
    }

    /// Reads the list again; `true` if it is not the first time and another list.
    fn refresh(&mut self) -> bool {
        let mut text = Vec::new();
        if let Ok(file) = File::open("/proc/modules") {
            let _ = file.take(MAX_BYTES).read_to_end(&mut text);
        }
        let loaded = parse(&String::from_utf8_lossy(&text));
        let changed = self.read.is_some() && loaded != self.loaded;
        (self.loaded, self.read) = (loaded, Some(Instant::now()));
        changed
    }
}

/// Lines of `/proc/modules`; without the privilege to see addresses all are 0 and none is known.
fn parse(text: &str) -> Vec<(u64, u64, String)> {
    let mut modules: Vec<_> = text.lines().filter_map(parse_line).collect();
    modules.sort_unstable();
    modules
}

fn parse_line(line: &str) -> Option<(u64, u64, String)> {
    let mut fields = line.split(' ');
    let name = fields.next()?;
    let bytes: u64 = fields.next()?.parse().ok()?;
    let start = u64::from_str_radix(fields.nth(3)?.strip_prefix("0x")?, 16).ok()?;
    (start != 0).then_some((start, start.checked_add(bytes)?, name.to_owned()))
}

/// The 64-bit vDSO as a file: the same image is mapped into every 64-bit process.
pub fn vdso() -> Option<OwnedFd> {
    let own = super::mappings::parse(&std::fs::read("/proc/self/maps").ok()?);
    let mapping = own.into_iter().find(|mapping| mapping.path == "[vdso]")?;
    let length = usize::try_from(mapping.end - mapping.start).ok()?;
    // SAFETY: the kernel maps these pages readable for as long as this process lives, and nobody writes to them.
    let image = unsafe { std::slice::from_raw_parts(mapping.start as *const u8, length) };
    let mut file = File::from(rustix::fs::memfd_create("sberf-vdso", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(image).ok()?;
    Some(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_a_list() {
        let text = "ext4 1000 1 - Live 0xffffffffc0100000\nnf 16 0 - Live 0xffffffffc0000000 (OE)\nhidden 5 0 - Live 0x0000000000000000\ntorn 12 0";
        let mut modules = KernelModules { loaded: parse(text), read: Some(Instant::now()), ids: FxHashMap::default() };
        assert_eq!(modules.find(0xffff_ffff_c010_0000), Some("ext4"));
        assert_eq!(modules.find(0xffff_ffff_c000_000f), Some("nf"));
        assert_eq!(modules.find(0xffff_ffff_c000_0010), None);
        assert_eq!(modules.find(0), None);
        let (mut interner, mut names) = (Interner::default(), Names::default());
        let (ext4, changed) = modules.module_of(0xffff_ffff_c010_0001, &mut interner, &mut names);
        let (kernel, _) = modules.module_of(0xffff_ffff_8100_0001, &mut interner, &mut names);
        assert!(!changed && ext4 != kernel);
        let paths: Vec<_> = names.modules.iter().map(|(_, module)| module.path.as_str()).collect();
        assert_eq!(paths, ["[ext4]", "[kernel]"]);
    }

    #[test]
    fn hostile_lists() {
        assert!(
            parse("\n \na b c d e f\nx 99999999999999999999 1 - Live 0x1\ny 5 1 - Live 0xffffffffffffffff").is_empty()
        );
    }

    #[test]
    fn the_vdso_is_an_elf_file() {
        let Some(image) = vdso() else {
            eprintln!("skipped: no vDSO here");
            return;
        };
        let mut magic = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&File::from(image), &mut magic, 0).unwrap();
        assert_eq!(&magic, b"\x7fELF");
    }
}
