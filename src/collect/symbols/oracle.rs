//! What tests hold names against: programs built for the purpose, and what nm and addr2line say of them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that was just built.
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    dir: tempfile::TempDir,
}

impl Built {
    /// Of assembly, without a C library; `None` (and said) where there is no compiler.
    pub fn assembly(source: &str) -> Option<Self> {
        Self::with("cc", "s", source, &["-nostdlib", "-static"])
    }

    /// Of C, by that compiler.
    pub fn c(compiler: &str, source: &str, flags: &[&str]) -> Option<Self> {
        Self::with(compiler, "c", source, flags)
    }

    /// Of a language, by the ending of its files.
    pub fn with(compiler: &str, ending: &str, source: &str, flags: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (code, path) = (dir.path().join(format!("fixture.{ending}")), dir.path().join("fixture"));
        std::fs::write(&code, source).unwrap();
        let output = Command::new(compiler).args(flags).arg(&code).arg("-o").arg(&path).output();
        match output {
            Ok(output) if output.status.success() => Some(Built { path, dir }),
            Ok(output) => panic!("{compiler} {flags:?}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                eprintln!("skipped: {compiler}: {error}");
                None
            }
        }
    }

    /// Its directory, for files beside it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a tool in its directory; false (and said) where there is no such tool.
    pub fn tool(&self, name: &str, args: &[&str]) -> bool {
        match Command::new(name).args(args).current_dir(self.dir()).output() {
            Ok(output) if output.status.success() => true,
            Ok(output) => panic!("{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                eprintln!("skipped: {name}: {error}");
                false
            }
        }
    }

    /// Address of a symbol.
    pub fn address(&self, name: &str) -> Option<u64> {
        nm(&self.path)?.into_iter().find(|(_, _, known)| known == name).map(|(start, ..)| start)
    }
}

/// A file with these bytes and no name.
pub fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Functions by nm: address, bytes (0: not told), name; by rising address. `None` (and said) where that cannot be asked.
pub fn nm(path: &Path) -> Option<Vec<(u64, u64, String)>> {
    let path = path.canonicalize().ok()?;
    let list = |more: &[&str]| {
        let output = Command::new("nm").args(["-S", "--defined-only"]).args(more).arg(&path).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (!text.is_empty()).then_some(text)
    };
    let Some(text) = list(&[]).or_else(|| list(&["-D"])) else {
        eprintln!("skipped: nm lists nothing of {}", path.display());
        return None;
    };
    let mut listed: Vec<_> = text.lines().filter_map(nm_line).collect();
    listed.sort();
    Some(listed)
}

fn nm_line(line: &str) -> Option<(u64, u64, String)> {
    let fields: Vec<&str> = line.splitn(4, ' ').collect();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, bytes, kind, name) = match fields.as_slice() {
        [start, bytes, kind, name] => (hex(start)?, hex(bytes)?, *kind, *name),
        [start, kind, name] => (hex(start)?, 0, *kind, *name),
        _ => return None,
    };
    let name = name.split('@').next()?;
    (matches!(kind, "t" | "T" | "w" | "W" | "i") && start > 0).then(|| (start, bytes, name.to_owned()))
}

/// One function at an address, as addr2line tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name, not demangled.
    pub function: String,
    /// Path and line; `None` where it says `??` or `:0` or `:?`.
    pub line: Option<(String, u32)>,
}

/// What addr2line (or a program that understands its flags) says of addresses, for each the innermost function first.
/// `None` (and said) where there is none.
pub fn addr2line(program: &str, path: &Path, addresses: &[u64]) -> Option<Vec<Vec<Place>>> {
    let mut child = match Command::new(program)
        .args(["-a", "-f", "-i", "-e"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            return None;
        }
    };
    let asked: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(asked.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<Vec<Place>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            found.push(Vec::new());
        } else if let (Some(places), Some(place)) = (found.last_mut(), lines.next()) {
            places.push(Place { function: line.to_owned(), line: line_of(place) });
        }
    }
    assert_eq!(found.len(), addresses.len(), "{program}");
    Some(found)
}

fn line_of(text: &str) -> Option<(String, u32)> {
    let text = text.split(" (discriminator").next()?;
    let (path, line) = text.rsplit_once(':')?;
    let line: u32 = line.parse().ok()?;
    (path != "??" && line > 0).then(|| (path.to_owned(), line))
}
