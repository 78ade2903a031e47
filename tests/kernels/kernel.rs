//! A Debian kernel, as it is booted: the ELF image and the modules a virtual machine wants. Kept in `target/kernels`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::apt::Tree;
use crate::bounded::output;
use crate::unpack::{decompressed, vmlinux};

/// What the guest loads, what it needs first coming first; built in or absent is fine.
const MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "overlay",
    "configfs",
    "null_blk",
];

/// Mirrors drop versions when newer ones come; a kernel that is here is taken without asking for that long.
const FRESH: Duration = Duration::from_secs(14 * 86400);
const UNPACK: Duration = Duration::from_secs(60);

/// A kernel that was asked for: the name of the row, and where Debian has it.
pub struct Series {
    /// As asked for: `6.1`, or `newest`.
    pub name: &'static str,
    suites: &'static [&'static str],
    /// How its release begins.
    begins: &'static str,
    /// sberf runs on it; if not, it must say why.
    pub runs: bool,
}

/// Oldest first.
pub const ALL: &[Series] = &[
    Series { name: "5.10", suites: &["bullseye", "bullseye-security"], begins: "5.10.", runs: false },
    Series { name: "6.1", suites: &["bookworm", "bookworm-security"], begins: "6.1.", runs: true },
    Series { name: "6.12", suites: &["trixie", "trixie-security"], begins: "6.12.", runs: true },
    Series { name: "6.18", suites: &["trixie-backports"], begins: "6.18.", runs: true },
    Series { name: "newest", suites: &["sid"], begins: "", runs: true },
];

/// An unpacked kernel.
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    /// Holds `vmlinux`, and `mod/` with modules and the order to load them in.
    pub dir: PathBuf,
}

impl Kernel {
    /// What is in `cache`, else from the mirror.
    ///
    /// # Errors
    /// Why it cannot be had here.
    pub fn get(series: &Series, cache: &Path) -> Result<Kernel, String> {
        let note = cache.join(format!("release-{}", series.name));
        if let Some(kernel) = kept(&note, cache) {
            return Ok(kernel);
        }
        let tree = Tree::new(&cache.join(format!("apt-{}", series.name)), series.suites)?;
        let release = newest(&tree, series)?;
        let dir = cache.join(&release);
        if !dir.join("vmlinux").exists() {
            fetch(&tree, &release, &dir)?;
        }
        fs::write(&note, &release).map_err(|error| format!("{}: {error}", note.display()))?;
        Ok(Kernel { release, dir })
    }
}

fn kept(note: &Path, cache: &Path) -> Option<Kernel> {
    let age = SystemTime::now().duration_since(note.metadata().ok()?.modified().ok()?).ok()?;
    let release = fs::read_to_string(note).ok()?;
    let dir = cache.join(&release);
    (age < FRESH && dir.join("vmlinux").exists()).then_some(Kernel { release, dir })
}

/// The newest release of a series that there is a package of.
fn newest(tree: &Tree, series: &Series) -> Result<String, String> {
    let names = tree.named("linux-image-")?;
    let mut releases: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| release.starts_with(|first: char| first.is_ascii_digit()))
        .filter(|release| release.starts_with(series.begins) && release.ends_with("-amd64"))
        .filter(|release| !["-cloud-", "-rt-", "-rc"].iter().any(|other| release.contains(other)))
        .collect();
    releases.sort_by_key(|release| std::cmp::Reverse(numbers(release)));
    let found = releases.into_iter().take(8).find(|release| tree.has(&format!("linux-image-{release}")));
    found.map(str::to_owned).ok_or_else(|| format!("the mirror has no kernel {}", series.name))
}

/// The numbers in a release, to sort by.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn fetch(tree: &Tree, release: &str, dir: &Path) -> Result<(), String> {
    let io = |error: std::io::Error| format!("{}: {error}", dir.display());
    let parent = dir.parent().ok_or("no directory for kernels")?;
    let work = tempfile::tempdir_in(parent).map_err(io)?;
    // Up to 6.x one package holds all of it; from 7.0 on that one only points to the others.
    let parts = ["image", "binary", "modules", "base"].map(|part| format!("linux-{part}-{release}"));
    let packages: Vec<String> = parts.into_iter().filter(|package| tree.has(package)).collect();
    tree.unpack(&packages, work.path())?;
    let files = all_files(work.path());
    let image = files.iter().find(|path| name_of(path).starts_with("vmlinuz")).ok_or("no kernel in the package")?;
    let ready = work.path().join("ready");
    fs::create_dir_all(ready.join("mod")).map_err(io)?;
    let mut order = Vec::new();
    MODULES.iter().try_for_each(|module| add_module(module, &files, &ready.join("mod"), &mut order))?;
    fs::write(ready.join("mod/order"), order.join("\n") + "\n").map_err(io)?;
    let elf = vmlinux(&fs::read(image).map_err(io)?)?;
    fs::write(ready.join("vmlinux"), elf).map_err(io)?;
    let _ = fs::remove_dir_all(dir);
    fs::rename(&ready, dir).map_err(io)
}

/// Copies a module and what it depends on, in the order to load them in; built in or absent: nothing.
fn add_module(name: &str, files: &[PathBuf], to: &Path, order: &mut Vec<String>) -> Result<(), String> {
    let name = name.replace('-', "_");
    let stem = |path: &Path| name_of(path).split(".ko").next().unwrap_or_default().replace('-', "_");
    let is_it = |path: &&PathBuf| name_of(path).contains(".ko") && stem(path) == name;
    let Some(file) = files.iter().find(is_it).filter(|_| !order.contains(&name)) else { return Ok(()) };
    let bytes = decompressed(&fs::read(file).map_err(|error| error.to_string())?)?;
    let needs = memchr::memmem::find(&bytes, b"\0depends=").map_or(&[][..], |at| &bytes[at + 9..]);
    let needs = needs.split(|byte| *byte == 0).next().unwrap_or_default();
    for need in String::from_utf8_lossy(needs).split(',').filter(|need| !need.is_empty()) {
        add_module(need, files, to, order)?;
    }
    fs::write(to.join(format!("{name}.ko")), bytes).map_err(|error| error.to_string())?;
    order.push(name);
    Ok(())
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut command = Command::new("find");
    command.arg(dir).args(["-type", "f"]);
    output(command, UNPACK).unwrap_or_default().lines().map(PathBuf::from).collect()
}
