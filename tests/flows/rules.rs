//! The rule engine beside the one that its language comes from.

use std::path::{Path, PathBuf};
use std::process::Command;

/// SpamAssassin's own modules and Ortler judge our sample mail with SpamAssassin's own rules, and decide alike.
#[test]
fn stock_rules_decide_as_in_spamassassin() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let labels = std::fs::read_to_string(root.join("corpus/labels.tsv")).unwrap();
    let paths: Vec<PathBuf> = labels
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split('\t').next())
        .map(|path| root.join("corpus").join(path))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    let text: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    std::fs::write(&list, text.join("\n")).unwrap();
    let output = Command::new("python3")
        .arg(root.join("tests/bench/rules_agreement.py"))
        .arg(&list)
        .args(["--json", "--ortler", env!("CARGO_BIN_EXE_ortler")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("{name}: {result}"));
    assert_eq!(result["messages"].as_u64(), u64::try_from(paths.len()).ok(), "{result}");
    assert_eq!(result["not_compared"].as_u64(), Some(0), "{result}");
    assert!(figure("supported_score") >= 0.97, "{result}");
    assert!(figure("equal") >= 0.999 && figure("jaccard") >= 0.97, "{result}");
}

/// Every line of the stock set is understood, or said to do nothing.
#[test]
fn stock_rules_have_no_errors() {
    let output = Command::new(env!("CARGO_BIN_EXE_ortler"))
        .args(["rules", "check", "/usr/share/spamassassin"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(" 0 errors") && text.contains("positive scores: "), "{text}");
}
