//! The faces: files compiled in, and the one page that starts them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::error::ApiError;
use crate::security::{APP_POLICY, set_policy};
use crate::server::{Inner, Peer};

#[derive(RustEmbed)]
#[folder = "browser/"]
#[allow_missing = true]
struct Files;

/// The files as browsers fetch them, packed when first asked for: there are few, and they never change.
#[derive(Default)]
pub(crate) struct Assets {
    packed: OnceLock<HashMap<String, Bytes>>,
}

impl Assets {
    fn packed(&self, path: &str) -> Option<&Bytes> {
        let pack = |path: Cow<'static, str>| Some((path.to_string(), pack(&Files::get(&path)?.data)?));
        self.packed.get_or_init(|| Files::iter().filter_map(pack).collect()).get(path)
    }
}

/// A file as it was compiled in.
pub(crate) fn compiled_in(path: &str) -> Option<Cow<'static, [u8]>> {
    Files::get(path).map(|file| file.data)
}

/// With gzip, which every browser reads.
fn pack(content: &[u8]) -> Option<Bytes> {
    let mut writer = GzEncoder::new(Vec::with_capacity(content.len() / 2), Compression::best());
    writer.write_all(content).ok()?;
    writer.finish().ok().map(Bytes::from)
}

/// The page behind `/`, `/mail`, `/log` and `/admin`.
const SHELL: &str = "index.html";

pub(crate) async fn shell(
    State(web): State<Arc<Inner>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    match web.session(&headers, peer).await {
        Ok(Some(_)) => {}
        Ok(None) => return Redirect::to("/login").into_response(),
        Err(error) => return error.into_response(),
    }
    let Some(file) = Files::get(SHELL) else { return ApiError::NotFound.into_response() };
    let mut response = (StatusCode::OK, file.data.into_owned()).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    set_policy(fields, APP_POLICY);
    response
}

pub(crate) async fn file(State(web): State<Arc<Inner>>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    match Files::get(&path) {
        // Notes for developers lie beside the files.
        Some(file) if !path.ends_with(".md") => serve(&path, file, web.assets.packed(&path).cloned(), &headers),
        _ => ApiError::NotFound.into_response(),
    }
}

pub(crate) async fn favicon(headers: HeaderMap) -> Response {
    match Files::get("favicon.ico").or_else(|| Files::get("icon.svg")) {
        Some(file) => serve("icon.svg", file, None, &headers),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A browser asks again each time and mostly hears 304: an update of the node is seen at once.
fn serve(path: &str, file: EmbeddedFile, packed: Option<Bytes>, headers: &HeaderMap) -> Response {
    let digest: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let takes = accepted.split(',').any(|coding| coding.trim() == "gzip");
    let packed = packed.filter(|packed| takes && packed.len() < file.data.len());
    let tag = format!("\"{digest}{}\"", if packed.is_some() { "-z" } else { "" });
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let is_packed = packed.is_some();
    let mut response = match packed {
        _ if known => StatusCode::NOT_MODIFIED.into_response(),
        Some(packed) => packed.into_response(),
        None => file.data.into_owned().into_response(),
    };
    let fields = response.headers_mut();
    if is_packed && !known {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        fields.insert(header::ETAG, tag);
    }
    // A service worker is a page of its own to the browser.
    set_policy(fields, APP_POLICY);
    response
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn text(path: &str) -> String {
        String::from_utf8(Files::get(path).unwrap_or_else(|| panic!("{path} is missing")).data.into_owned()).unwrap()
    }

    /// Each key with the names of the values that its text takes.
    fn texts(language: &str) -> Vec<(String, BTreeSet<String>)> {
        let texts = crate::words::texts(language);
        let name = |piece: &str| piece.split(['}', '|']).next().unwrap_or_default().to_owned();
        let names = |text: &str| text.split('{').skip(1).map(name).collect();
        texts.iter().map(|(key, text)| (key.clone(), names(text.as_str().unwrap()))).collect()
    }

    #[test]
    fn every_language_has_every_text() {
        let english = texts("en");
        assert!(english.len() > 300);
        for language in ["de", "it"] {
            assert_eq!(texts(language), english, "{language}");
        }
    }

    /// `t('key')` of every module, and the keys that tables of the administration are headed by.
    #[test]
    fn every_text_that_a_page_asks_for_is_there() {
        let known: BTreeSet<String> = texts("en").into_iter().map(|(key, _)| key).collect();
        let (mut asked, mut missing) = (0, Vec::new());
        for path in Files::iter().filter(|path| path.ends_with(".js") && !path.starts_with("vendor/")) {
            let module = text(&path);
            let mut keys: Vec<&str> = Vec::new();
            for (at, call) in module.match_indices("t('") {
                if !module[..at].ends_with(|before: char| before.is_alphanumeric() || "_.".contains(before)) {
                    keys.extend(module[at + call.len()..].split('\'').next());
                }
            }
            for table in ["heads=${[", "fields=${["] {
                let lists = module.split(table).skip(1).filter_map(|rest| rest.split(']').next());
                keys.extend(lists.flat_map(|list| list.split(", ").map(|key| key.trim_matches('\''))));
            }
            asked += keys.len();
            missing.extend(keys.into_iter().filter(|key| !known.contains(*key)).map(|key| format!("{path}: {key}")));
        }
        assert!(asked > 300 && missing.is_empty(), "{asked} asked for, missing: {missing:?}");
    }

    /// What the first page runs: all that its script imports, and one language.
    #[test]
    fn the_first_page_is_light() {
        let (mut waiting, mut seen) = (vec!["app.js".to_owned(), "i18n/de.js".to_owned()], BTreeSet::new());
        while let Some(path) = waiting.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let module = text(&path);
            let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            for piece in module.split("from").skip(1) {
                let Some(target) = piece.trim_start().strip_prefix(['\'', '"']) else { continue };
                match target.split(['\'', '"']).next().unwrap_or_default() {
                    target if target.starts_with("../") => waiting.push(target[3..].to_owned()),
                    target if target.starts_with("./") => waiting.push(format!("{folder}{}", &target[2..])),
                    _ => {}
                }
            }
        }
        assert!(seen.contains("faces/reader.js") && !seen.contains("vendor/uplot.js"), "{seen:?}");
        let total: usize = seen.iter().map(|path| pack(text(path).as_bytes()).unwrap().len()).sum();
        eprintln!("{} modules, {total} octets", seen.len());
        assert!(total <= 60_000, "the first page's scripts take {total} octets");
    }
}
