//! The kernel side compiles for the other processor, too, and what both sides compute is the same. Needs nothing but clang; that the
//! rest compiles, `make cross` checks.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sberf::tick::bucket_of;

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

/// Reads values, says the bucket of each.
const BUCKETS: &str = r#"
#include <stdio.h>
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
typedef unsigned char __u8;
typedef unsigned int __u32;
typedef unsigned long long __u64;
#define BOUND(index, mask) ((index) &= (mask))
#define WINDOW_FIRST 0
#define WINDOW_CELLS 1
#include "hist.bpf.h"
int main(void)
{
	unsigned long long value;
	while (scanf("%llu", &value) == 1)
		printf("%llu\n", bucket_of(value));
	return 0;
}
"#;

#[test]
fn both_sides_have_the_same_buckets() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("buckets.c"), dir.path().join("buckets"));
    fs::write(&source, BUCKETS).unwrap();
    let include = format!("-I{}", root().join("src/bpf").display());
    let compiled = Command::new(clang())
        .args(["-O2", "-Wall", "-Werror", "-Wno-unused-function"])
        .args([&include, "-o"])
        .arg(&program)
        .arg(&source)
        .status();
    assert!(compiled.unwrap().success());
    let around = (3..63).flat_map(|power| (0..16u64).map(move |step| (1u64 << power) + (step << power >> 4)));
    let edges = around.flat_map(|value| [value - 1, value, value + 1]);
    let values: Vec<u64> = (0..5000).chain(edges).chain([(1 << 63) - 1]).collect();
    let mut run = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text: String = values.iter().map(|value| format!("{value}\n")).collect();
    let mut input = run.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let told = String::from_utf8(run.wait_with_output().unwrap().stdout).unwrap();
    writer.join().unwrap().unwrap();
    let told: Vec<u16> = told.lines().map(|line| line.parse().unwrap()).collect();
    let wrong = values.iter().zip(&told).find(|&(&value, &bucket)| bucket_of(value) != bucket);
    assert_eq!((told.len(), wrong), (values.len(), None));
}
