//! What kernels and modules are packed in.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// The ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst). QEMU starts it without firmware, and nothing is left to
/// be decompressed by an emulated processor.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>, String> {
    let number = |at: usize| image.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let header = || Some((*image.get(0x1f1)?, number(0x248)? as usize, number(0x24c)? as usize));
    let (sectors, offset, length) = header().ok_or("a kernel image that ends in its header")?;
    let start = offset + (usize::from(if sectors == 0 { 4 } else { sectors }) + 1) * 512;
    // The last four bytes are the unpacked length.
    let packed = image.get(start..(start + length).saturating_sub(4)).ok_or("a kernel image without its payload")?;
    let elf = decompressed(packed)?;
    if elf.starts_with(b"\x7fELF") { Ok(elf) } else { Err("no ELF kernel in the image".to_owned()) }
}

/// The bytes behind xz, zstd or gzip; as they are when they are none of these.
pub fn decompressed(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    match bytes {
        [0xfd, b'7', b'z', ..] => return through("xz", bytes),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::copy_decode(bytes, &mut plain).map(|()| 0),
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
        _ => return Ok(bytes.to_vec()),
    }
    .map_err(|error| format!("decompressing a kernel: {error}"))?;
    Ok(plain)
}

fn through(tool: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new(tool)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{tool}: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("no pipe")?;
    let packed = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&packed));
    let mut plain = Vec::new();
    let read = child.stdout.take().ok_or("no pipe")?.read_to_end(&mut plain);
    let _ = (writer.join(), child.wait());
    match read {
        Ok(bytes) if bytes > 0 => Ok(plain),
        _ => Err(format!("{tool} could not decompress a part of the kernel")),
    }
}
