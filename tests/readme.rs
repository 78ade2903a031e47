//! What the README says of the program is what the program says of itself: its parts between markers are made here.
//! `make readme` (this test with `SBERF_WRITE_README` set) writes them.

use std::fs;
use std::path::Path;

/// The text between `<!-- NAME -->` and `<!-- /NAME -->`, as (start, end) in bytes.
fn between(readme: &str, name: &str) -> Option<(usize, usize)> {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = readme.find(&open)? + open.len();
    Some((start, start + readme[start..].find(&close)?))
}

fn keep_in_step(name: &str, truth: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let mut readme = fs::read_to_string(&path).unwrap();
    let (start, end) = between(&readme, name).unwrap_or_else(|| panic!("README.md has no <!-- {name} --> markers"));
    let truth = format!("\n{}\n\n", truth.trim());
    if readme[start..end] == truth {
        return;
    }
    if std::env::var_os("SBERF_WRITE_README").is_some() {
        readme.replace_range(start..end, &truth);
        fs::write(&path, readme).unwrap();
        return;
    }
    panic!("README.md: `{name}` is out of step; `make readme` writes it");
}

#[test]
fn keys_are_those_of_the_binding_table() {
    keep_in_step("keys", &sberf::ui::keys::markdown());
}

#[test]
fn what_the_readme_points_to_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let local = !link.contains("://") && !link.starts_with('#');
        assert!(!local || root.join(link).exists(), "README.md points to {link}");
    }
}

#[test]
fn markers_are_found() {
    let text = "a\n<!-- x -->\nold\n<!-- /x -->\nb";
    assert_eq!(between(text, "x").map(|(start, end)| &text[start..end]), Some("old\n"));
    assert_eq!(between(text, "y"), None);
}
