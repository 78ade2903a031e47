//! What runs inside the machine, as root, with nobody else: checks in order, one line of the report each.

mod counts;
mod cpus;
pub mod known;
mod patching;
mod program;
mod refusal;

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use sberf::tick::Session;

/// Longer than any check takes, by the guest's clock.
const PATIENCE: Duration = Duration::from_secs(150);
/// The capture's name in the shared directory.
pub const CAPTURE: &str = "inside.sberf";

/// What is being checked, for the watchdog: a number and a name.
static CURRENT: Mutex<(u64, String)> = Mutex::new((0, String::new()));
/// What a panic said.
static SAID: Mutex<String> = Mutex::new(String::new());

fn line(words: &[&dyn Display]) {
    let words: Vec<String> = words.iter().map(|word| word.to_string().replace(['\t', '\n'], " ")).collect();
    println!("{}", words.join("\t"));
}

/// Runs the checks of a role.
pub fn main(role: &str) -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        let payload: &dyn Any = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        if let Ok(mut said) = SAID.lock() {
            *said = format!("{at}: {}", text.unwrap_or("a panic"));
        }
    }));
    std::thread::spawn(watch);
    match role {
        "refuses" => {
            check("says why nothing loads here", refusal::says_why);
            check("procfs alone", refusal::procfs_alone);
        }
        "locked" => {
            check("says that it is locked down", refusal::says_locked_down);
            check("doctor says the same", refusal::doctor_says_so);
            check("procfs alone", refusal::procfs_alone);
        }
        "wide" => {
            cpus::wide();
            program::json();
        }
        _ => {
            patching::alone();
            counts::programs();
            known::answers();
            cpus::come_and_go();
            cpus::blink();
            program::json();
            program::capture();
        }
    }
    ExitCode::SUCCESS
}

/// Runs one check; a panic in it is its failure, and what it returns is told beside its name.
pub fn check<T: Display>(name: &str, run: impl FnOnce() -> T) {
    if let Ok(mut current) = CURRENT.lock() {
        *current = (current.0 + 1, name.to_owned());
    }
    line(&[&"begin", &name]);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(detail) => line(&[&"check", &name, &"ok", &detail]),
        Err(_) => {
            let said = SAID.lock().map(|said| said.clone()).unwrap_or_default();
            line(&[&"check", &name, &"failed", &said]);
        }
    }
}

/// A check that hangs is one that fails; nothing after it is tried.
fn watch() {
    let mut seen = 0;
    loop {
        std::thread::sleep(PATIENCE);
        let current = CURRENT.lock().map(|current| current.clone()).unwrap_or_default();
        if current.0 == seen {
            line(&[&"check", &current.1, &"failed", &format!("not done after {} s", PATIENCE.as_secs())]);
            std::process::exit(1);
        }
        seen = current.0;
    }
}

/// Tells which lenses are on.
pub fn tell_lenses(session: &Session) {
    for lens in &session.lenses {
        line(&[&"lens", &lens.name, &lens.off.as_deref().unwrap_or("on")]);
    }
}
