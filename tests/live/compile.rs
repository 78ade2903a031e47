//! Compiles the programs under `tests/fixtures`, once for each way of compiling.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// How the workloads that do not care are compiled.
const PLAIN: [&str; 6] = ["-O2", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-Wall", "-Wextra"];

/// A workload, compiled plainly.
pub fn workload(name: &str) -> PathBuf {
    compile("cc", name, name, &PLAIN).expect("cc, the C compiler, is needed to build the workloads")
}

/// Compiles `tests/fixtures/SOURCE.c` to a file called `to`, unless that has been done since it changed.
///
/// # Errors
/// When there is no such compiler. That it refuses its input is a failure of the test.
pub fn compile(compiler: &str, source: &str, to: &str, flags: &[&str]) -> std::io::Result<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let source = fixtures.join(format!("{source}.c"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(to);
    let newest = modified(&source).max(modified(&fixtures.join("fixture.h"))).max(modified(Path::new(file!())));
    if program.metadata().and_then(|meta| meta.modified()).is_ok_and(|built| built > newest) {
        return Ok(program);
    }
    let output = Command::new(compiler).arg(&source).args(flags).arg("-pthread").arg("-o").arg(&program).output()?;
    assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

/// Compiles `tests/fixtures/SOURCE.bpf.c` to an object for the kernel.
///
/// # Errors
/// Where there is no clang for that.
pub fn compile_bpf(source: &str) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clang = Command::new("sh").arg(root.join("scripts/clang.sh")).output().map_err(|error| error.to_string())?;
    if !clang.status.success() {
        return Err(String::from_utf8_lossy(&clang.stderr).trim().to_owned());
    }
    let clang = String::from_utf8_lossy(&clang.stdout).trim().to_owned();
    let source = root.join("tests/fixtures").join(format!("{source}.bpf.c"));
    let object = Path::new(env!("CARGO_TARGET_TMPDIR")).join(source.with_extension("o").file_name().expect("a file"));
    let output = Command::new(&clang)
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-c", "-o"])
        .args([&object, &source])
        .output()
        .map_err(|error| format!("{clang}: {error}"))?;
    assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    Ok(object)
}

fn modified(file: &Path) -> SystemTime {
    file.metadata().and_then(|meta| meta.modified()).expect("a source file")
}
