//! What the screen has seen, saved as a capture: on a thread of its own, for the screen goes on.

use std::fs::File;

use crossbeam_channel::{Receiver, bounded};

use sberf::collect::capture::{CaptureError, Writer};
use sberf::model::{Model, Saved};

use crate::export::new_file;

/// Saves the ticks that are kept to a new file in the current directory, which only its owner can read; yields what to
/// tell the person, now and when it is done. `name` is a proposal: a file that exists is left alone.
pub fn start(model: &Model, name: &str) -> Result<(String, Receiver<String>), String> {
    let saved = model.saved().ok_or("there is nothing to save yet")?;
    let (path, file) = new_file(name).map_err(|error| format!("cannot write {name}: {error}"))?;
    let (tell, done) = bounded(1);
    let ticks = saved.ticks();
    let said = format!("saving {ticks} ticks to {path} …");
    let run = move || {
        let said = match save(saved, file) {
            Ok((ticks, bytes)) => format!("saved {ticks} ticks, {bytes} bytes, to {path}"),
            Err(error) => format!("{path}: {error}"),
        };
        // Nobody listens any more: then nobody needs to know.
        let _ = tell.send(said);
    };
    std::thread::Builder::new().name("save".into()).spawn(run).map_err(|error| format!("cannot save: {error}"))?;
    Ok((said, done))
}

/// Yields how many ticks and bytes were written.
fn save(saved: Saved, file: File) -> Result<(u64, u64), CaptureError> {
    let mut writer = Writer::new(file, saved.session())?;
    for batch in saved {
        writer.write(&batch)?;
    }
    let written = (writer.ticks(), writer.bytes());
    writer.finish()?;
    Ok(written)
}
