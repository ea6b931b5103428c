//! Rules of the house that no compiler checks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floor of each crate; imports go to lower floors only, and on the ground `mail` may import `base`.
const FLOORS: &[(&str, u8)] = &[
    ("base", 0),
    ("mail", 0),
    ("config", 1),
    ("net", 1),
    ("attachment", 1),
    ("access", 1),
    ("policy", 1),
    ("engine", 1),
    ("smtp", 2),
    ("mailauth", 2),
    ("directory", 2),
    ("classifier", 2),
    ("reputation", 2),
    ("peers", 2),
    ("store", 2),
    ("trail", 2),
    ("cluster", 2),
    ("legacy", 2),
    ("layers", 2),
    ("filter", 3),
    ("relay", 3),
    ("imap", 3),
    ("pop3", 3),
    ("managesieve", 3),
    ("jmap", 3),
    ("reception", 4),
    ("web", 4),
    ("migrate", 4),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn crates_import_from_lower_floors_only() {
    let floors: HashMap<&str, u8> = FLOORS.iter().copied().collect();
    for (name, floor) in FLOORS {
        let manifest = std::fs::read_to_string(root().join("src").join(name).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not inherit the lints");
        let section = manifest.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
        for line in section.lines() {
            let import = line.split(['.', ' ', '=']).next().unwrap_or("");
            if let Some(other) = floors.get(import) {
                assert!(other < floor || (*name, import) == ("mail", "base"), "{name} imports {import}");
            }
        }
    }
    let members = std::fs::read_dir(root().join("src"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().join("Cargo.toml").exists());
    assert_eq!(members.count(), FLOORS.len(), "a crate is missing in the table of floors");
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn state_machines_are_pure() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    for file in files {
        let name = file.to_str().unwrap();
        let is_pure = name.contains("/proto/")
            || ["session.rs", "schedule.rs", "verdict.rs"].iter().any(|pure| name.ends_with(&format!("/{pure}")));
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or("");
        for banned in ["tokio::", "std::net::Tcp", "std::fs", "Instant::now", "SystemTime"] {
            assert!(!is_pure || !code.contains(banned), "{name} is pure and names {banned}");
        }
        for banned in ["todo!(", "unimplemented!("] {
            assert!(!code.contains(banned), "{name} holds {banned}");
        }
    }
}

#[test]
fn the_top_level_is_the_fixed_list() {
    let Ok(output) = Command::new("git").arg("-C").arg(root()).arg("ls-files").output() else { return };
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "rules",
        "policies",
        "tests",
        "corpus",
        "packaging",
        "README.md",
        "LICENSE",
    ];
    for file in String::from_utf8(output.stdout).unwrap().lines() {
        let top = file.split('/').next().unwrap_or("");
        assert!(allowed.contains(&top) || top.starts_with('.'), "{file}");
    }
}

/// A finding that is renamed would lose its German and Italian words without a sound.
#[test]
fn translated_findings_exist() {
    let mut files = Vec::new();
    sources(&root().join("src/filter"), &mut files);
    let rules = std::fs::read_dir(root().join("rules")).unwrap().map(|file| file.unwrap().path());
    let known: String = files.into_iter().chain(rules).map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let known: std::collections::HashSet<&str> =
        known.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).collect();
    let words = std::fs::read_to_string(root().join("src/web/browser/i18n/findings.js")).unwrap();
    let names: Vec<&str> =
        words.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(": [")).map(|(name, _)| name).collect();
    assert!(names.len() > 100);
    for name in names {
        assert!(known.contains(name), "no check finds {name}");
    }
}
