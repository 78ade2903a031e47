//! Commands that may not take for ever.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Why a command gave nothing.
fn told(command: &Command, why: impl std::fmt::Display) -> String {
    format!("{}: {why}", command.get_program().to_string_lossy())
}

/// What a command prints; it is killed after `limit`.
///
/// # Errors
/// That it cannot be started, failed (with the last line that it said), or did not end in time.
pub fn output(mut command: Command, limit: Duration) -> Result<String, String> {
    let dir = tempfile::tempdir().map_err(|error| told(&command, error))?;
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let create = |path: &Path| File::create(path).map_err(|error| format!("{}: {error}", path.display()));
    command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
    let mut child = command.spawn().map_err(|error| told(&command, error))?;
    match wait(&mut child, limit) {
        Some(true) => std::fs::read_to_string(&out).map_err(|error| told(&command, error)),
        Some(false) => {
            let said = std::fs::read_to_string(&err).unwrap_or_default();
            Err(told(&command, said.trim().lines().last().unwrap_or("it failed")))
        }
        None => Err(told(&command, format!("not done after {} s", limit.as_secs()))),
    }
}

/// Whether it ended well; `None` if it had to be killed.
pub fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let end = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status.success());
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
