//! Data that rides in the binary.

use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "rules/"]
struct Rules;

/// Name and text of each shipped rule file, in order of name.
pub fn shipped_rules() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> =
        Rules::iter().filter(|name| name.ends_with(".cf")).map(|name| name.into_owned()).collect();
    names.sort_unstable();
    let file = |name: String| Rules::get(&name).map(|file| (name, file.data.into_owned()));
    names.into_iter().filter_map(file).collect()
}
