//! What the machine boots from: a static busybox, the modules, and the script that mounts this machine's own root, read-only.

use std::fs;
use std::path::Path;

const INIT: &[u8] = include_bytes!("init.sh");

/// A `newc` archive (Documentation/driver-api/early-userspace/buffer-format.rst).
struct Archive(Vec<u8>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        let serial = self.0.len() as u32;
        let fields = [serial, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.0.extend_from_slice(b"070701");
        fields.iter().for_each(|field| self.0.extend_from_slice(format!("{field:08x}").as_bytes()));
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.align();
        self.0.extend_from_slice(bytes);
        self.align();
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The archive for the kernel in that directory.
///
/// # Errors
/// What is missing here.
pub fn make(kernel: &Path) -> Result<Vec<u8>, String> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    let mut archive = Archive(Vec::new());
    for dir in ["bin", "mod", "proc", "sys", "dev"] {
        archive.add(dir, 0o040_755, &[]);
    }
    archive.add("bin/busybox", 0o100_755, &busybox.ok_or("no busybox here (Debian: busybox-static)")?);
    let modules = kernel.join("mod");
    for entry in fs::read_dir(&modules).map_err(|error| format!("{}: {error}", modules.display()))?.flatten() {
        let bytes = fs::read(entry.path()).map_err(|error| error.to_string())?;
        archive.add(&format!("mod/{}", entry.file_name().to_string_lossy()), 0o100_644, &bytes);
    }
    archive.add("init", 0o100_755, INIT);
    archive.add("TRAILER!!!", 0, &[]);
    Ok(archive.0)
}
