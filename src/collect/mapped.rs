//! The symbol worker reads ELF files through mappings that it keeps, and every page it touched counts as our memory for
//! as long as it is mapped: 100 MB after a minute beside a compiler. They are clean pages of the page cache, so they can
//! be let go at once and come back without a disk when they are needed again.

use rustix::mm::{Advice, madvise};

/// Lets go of the pages of all files that are mapped shared and read-only. To be called only by the thread that makes and
/// ends all such mappings of this process.
pub fn let_go() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, len) in maps.lines().filter_map(shared_file) {
        // SAFETY: the range is a shared, read-only mapping of a file: its pages are read again from the file when they
        // are next touched, so nobody can see that they were gone. Only the calling thread ends such mappings, so the
        // range cannot have become another one since the list was read.
        let _ = unsafe { madvise(std::ptr::with_exposed_provenance_mut(start), len, Advice::LinuxDontNeed) };
    }
}

/// (start, bytes) of the mapping on this line if it is of a file, shared, and for reading only.
fn shared_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let access = fields.next()?;
    let path = fields.nth(3)?;
    if access != "r--s" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_shared_and_read_only() {
        let line = |access: &str, path: &str| format!("7f0000000000-7f0000002000 {access} 00000000 fe:00 123   {path}");
        assert_eq!(shared_file(&line("r--s", "/usr/lib/libc.so.6")), Some((0x7f00_0000_0000, 0x2000)));
        assert_eq!(shared_file(&line("rw-s", "/usr/lib/libc.so.6")), None);
        assert_eq!(shared_file(&line("r--p", "/usr/lib/libc.so.6")), None);
        assert_eq!(shared_file(&line("r--s", "anon_inode:bpf-map")), None);
        assert_eq!(shared_file("7f00-7e00 r--s 0 fe:00 1 /x"), None);
        assert_eq!(shared_file("nonsense"), None);
    }
}
