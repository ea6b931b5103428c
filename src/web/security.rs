//! Header fields that tell a browser what a page of ours may do.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// The application: own scripts only, no string ever becomes script.
pub(crate) const APP_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
     connect-src 'self'; frame-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Pages without scripts.
pub(crate) const PLAIN_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Downloads: nothing runs, nothing loads, wherever it is opened.
pub(crate) const DOWNLOAD_POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

/// A message's own page. `images` are the sources of its pictures: the folder of this message's inline parts and, where
/// the reader asked for remote ones, any host; a policy cannot leave ours out of these, so the page itself names no
/// other path of ours. Never `'self'`, by which hostile mail could ask for any path.
pub(crate) fn message_policy(images: &str) -> String {
    format!(
        "sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox; default-src 'none'; \
         style-src 'unsafe-inline'; img-src {images} data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'self'"
    )
}

/// Puts a policy on a response.
pub(crate) fn set_policy(headers: &mut HeaderMap, policy: &str) {
    if let Ok(value) = HeaderValue::from_str(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, value);
    }
}

/// What every response says, unless it already said something else.
pub(crate) fn set_common(headers: &mut HeaderMap, is_tls: bool) {
    let common: [(HeaderName, &str); 6] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not "no-referrer": with it browsers send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, DOWNLOAD_POLICY),
    ];
    for (name, value) in common {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if is_tls {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(year);
    }
}
