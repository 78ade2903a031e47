//! Which files of this machine are looked at.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::elf::is_elf;

/// Below these, programs and libraries lie.
const USUAL: [&str; 5] = ["/usr/bin", "/usr/lib", "/usr/libexec", "/lib", "/usr/local"];

/// x86-64 programs and libraries, the largest first, each once: those of the usual places and of the Rust toolchain, or all.
pub fn programs(all: bool) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = USUAL.iter().map(PathBuf::from).collect();
    let toolchain = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    dirs.extend(toolchain.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup"))));
    if all {
        dirs = vec![PathBuf::from("/")];
    }
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() && !is_elsewhere(&path) {
                dirs.push(path);
            } else if kind.is_file()
                && let Ok(metadata) = entry.metadata()
                && seen.insert((metadata.dev(), metadata.ino()))
                && metadata.len() > 64
                && starts_as_elf(&path)
            {
                found.push((metadata.len(), path));
            }
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Not on a disk, or made by tests and fuzzers.
fn is_elsewhere(path: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|other| path == Path::new(other))
        || path.ends_with("target")
        || path.ends_with("corpus")
}

fn starts_as_elf(path: &Path) -> bool {
    let mut head = [0; 20];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && is_elf(&head)
}
