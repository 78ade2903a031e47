//! A small file of procfs or sysfs that is read again and again: opened once, then read from its beginning.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// One such file. Text that is no UTF-8 has its foreign bytes replaced.
pub struct Reread {
    file: File,
    buffer: Vec<u8>,
    text: String,
    limit: usize,
}

impl Reread {
    /// Opens it; at most `limit` bytes are ever read.
    pub fn open(path: &str, limit: usize) -> io::Result<Self> {
        Ok(Reread { file: File::open(path)?, buffer: vec![0; 4096.min(limit)], text: String::new(), limit })
    }

    /// Its text now; `None` when it cannot be read (the CPU or disk that it tells of is gone).
    pub fn read(&mut self) -> Option<&str> {
        let mut have = 0;
        loop {
            if have == self.buffer.len() {
                if have >= self.limit {
                    break;
                }
                self.buffer.resize((2 * have).min(self.limit), 0);
            }
            match self.file.read_at(&mut self.buffer[have..], have as u64) {
                Ok(0) => break,
                Ok(got) => have += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        self.text.clear();
        self.text.push_str(&String::from_utf8_lossy(&self.buffer[..have]));
        Some(&self.text)
    }
}
