//! The kernel side compiles for the other processor, too. Needs nothing but clang; that the rest does, `make cross` checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The clang that the build uses.
fn clang() -> String {
    let found = Command::new("sh").arg(root().join("scripts/clang.sh")).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

fn sources() -> Vec<PathBuf> {
    let all = fs::read_dir(root().join("src/bpf")).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().ends_with(".bpf.c")).collect()
}

/// Compiles as `build.rs` does; what clang says when it refuses.
fn compile(source: &Path, processor: &str, headers: &Path, to: &Path) -> Result<(), String> {
    let output = Command::new(clang())
        .args(["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-fno-stack-protector", "-Wall", "-Werror"])
        .args(["-Wno-unused-function", "-Wno-missing-declarations"])
        .arg(format!("-D__TARGET_ARCH_{processor}"))
        .arg("-I")
        .arg(headers)
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(to)
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn headers(dir: &Path) {
    fs::create_dir_all(dir.join("bpf")).unwrap();
    for (name, text) in libbpf_sys::API_HEADERS {
        fs::write(dir.join("bpf").join(name), text).unwrap();
    }
}

#[test]
fn objects_compile_for_both_processors() {
    let dir = tempfile::tempdir().unwrap();
    headers(dir.path());
    let sources = sources();
    assert!(sources.len() >= 6, "{sources:?}");
    for source in sources {
        for processor in ["x86", "arm64"] {
            let object = dir.path().join("object.o");
            let compiled = compile(&source, processor, dir.path(), &object);
            assert_eq!(compiled, Ok(()), "{} for {processor}", source.display());
        }
    }
}

/// That the test can fail: what only one of them has is refused for the other.
#[test]
fn registers_of_the_other_processor_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    headers(dir.path());
    let source = dir.path().join("one.bpf.c");
    fs::copy(root().join("src/bpf/kernel.h"), dir.path().join("kernel.h")).unwrap();
    fs::write(&source, "#include \"kernel.h\"\nlong f(struct pt_regs *regs)\n{\n\treturn regs->orig_ax;\n}\n").unwrap();
    let object = dir.path().join("object.o");
    assert_eq!(compile(&source, "x86", dir.path(), &object), Ok(()));
    assert!(compile(&source, "arm64", dir.path(), &object).is_err_and(|why| why.contains("orig_ax")));
}
