//! Who asks: a cookie of a session, or HTTP Basic for other clients.

use std::net::SocketAddr;
use std::sync::Arc;

use access::Grant;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use base::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use directory::{Account, ApiToken, Elsewhere, Hold, Login, LoginError, Protocol, TOKEN_PREFIX, WebSession};
use subtle::ConstantTimeEq as _;

use crate::error::ApiError;
use crate::server::{Inner, Peer};

/// Header that repeats the session's token on calls that change something.
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";

/// A signed-in account. Taking it as an argument is what protects a route.
pub(crate) struct Viewer {
    pub account: Account,
    /// `None` with HTTP Basic and tokens.
    pub session: Option<WebSession>,
    pub peer: Peer,
    /// It came with a token.
    pub is_program: bool,
    /// Roles count only for those who signed in as roles of their kind have to.
    counts: bool,
}

/// What tokens can be for: the first parts of the API's paths.
pub const AREAS: &[&str] = &[
    "accounts",
    "aliases",
    "app-passwords",
    "audit",
    "domains",
    "forwards",
    "keys",
    "log",
    "me",
    "message",
    "node",
    "nodes",
    "policy",
    "quarantine",
    "queue",
    "recipients",
    "removed",
    "reports",
    "roles",
    "senders",
    "tenants",
    "tokens",
];

impl Viewer {
    fn new(web: &Inner, account: Account, session: Option<WebSession>, peer: Peer) -> Self {
        let is_staff = account.grants.iter().any(|grant| grant.role.is_staff());
        let counts = !is_staff || account.has_second_factor || !web.settings.staff_needs_second_factor;
        Self { account, session, peer, is_program: false, counts }
    }

    /// Its roles.
    pub fn grants(&self) -> &[Grant] {
        if self.counts { &self.account.grants } else { &[] }
    }

    /// True if it holds roles that count once it has a second factor.
    pub fn lacks_second_factor(&self) -> bool {
        !self.counts
    }

    /// For what goes on being told after this request.
    pub async fn hold(&self, web: &Inner) -> Hold {
        web.services.directory.hold(self.account.id, Some(self.account.rights)).await
    }
}

impl FromRequestParts<Arc<Inner>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Arc<Inner>) -> Result<Self, ApiError> {
        let peer = parts.extensions.get::<Peer>().copied().ok_or(ApiError::Failed)?;
        if let Some(session) = web.session(&parts.headers, peer).await? {
            let account = web.services.directory.account(session.account).await?;
            let account = account.filter(|account| account.enabled).ok_or(ApiError::SignIn { offer_basic: false })?;
            if account.legacy.is_some() {
                return Err(ApiError::Elsewhere);
            }
            if !is_safe(&parts.method) {
                check_origin(&parts.headers)?;
                let token = parts.headers.get(CSRF_HEADER).map(|value| value.as_bytes()).unwrap_or_default();
                if !bool::from(token.ct_eq(session.csrf.as_bytes())) {
                    return Err(ApiError::Forbidden);
                }
            }
            return Ok(Self::new(web, account, Some(session), peer));
        }
        if let Some(token) = bearer(&parts.headers) {
            return by_token(web, &token, parts, peer).await;
        }
        let has_site = parts.headers.contains_key("sec-fetch-site");
        let Some((name, password)) = basic(&parts.headers) else {
            return Err(ApiError::SignIn { offer_basic: !has_site });
        };
        // A browser repeats Basic credentials by itself: then the same origin must be asking.
        if !is_safe(&parts.method) {
            check_origin(&parts.headers)?;
        }
        web.check_plain_login(peer)?;
        let account = sign_in(web, peer, &name, &password, None).await?;
        Ok(Self::new(web, account, None, peer))
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let is_ours = scheme.eq_ignore_ascii_case("bearer") && token.trim().starts_with(TOKEN_PREFIX);
    is_ours.then(|| token.trim().to_owned())
}

async fn by_token(web: &Inner, text: &str, parts: &Parts, peer: Peer) -> Result<Viewer, ApiError> {
    let token = web.services.registry.api_token(text).await?.ok_or(ApiError::SignIn { offer_basic: false })?;
    let account = web.services.directory.account(token.account).await?;
    let account = account.filter(|account| account.enabled).ok_or(ApiError::SignIn { offer_basic: false })?;
    if !allows(&token, parts.uri.path(), is_safe(&parts.method)) {
        return Err(ApiError::Forbidden);
    }
    // Whoever made it had signed in as its roles need.
    Ok(Viewer { account, session: None, peer, is_program: true, counts: true })
}

/// Whether a token's scopes hold a call. What writes also reads.
fn allows(token: &ApiToken, path: &str, is_read: bool) -> bool {
    let Some(rest) = path.strip_prefix("/api/v1/") else { return false };
    let area = rest.split('/').next().unwrap_or_default();
    // Nobody makes tokens by a token, or learns what a browser's session is.
    if area == "tokens" || area == "session" || area == "me" && !is_read {
        return false;
    }
    token.scopes.iter().any(|scope| match scope.split_once(':') {
        Some((of, verb)) => (of == "*" || of == area) && (verb == "write" || is_read),
        None => false,
    })
}

/// Checks a password; a failure is answered after the delay that the directory asks for.
pub(crate) async fn sign_in(
    web: &Inner,
    peer: Peer,
    name: &str,
    password: &Secret<String>,
    code: Option<&str>,
) -> Result<Account, ApiError> {
    let login = Login { name, password, protocol: Protocol::Web, peer: peer.address, code };
    match web.services.directory.authenticate(login).await {
        Ok(account) => Ok(account),
        Err(LoginError::Refused { delay }) => {
            tokio::time::sleep(delay).await;
            Err(ApiError::SignIn { offer_basic: false })
        }
        Err(LoginError::TooMany) => Err(ApiError::TooManyAttempts),
        Err(LoginError::SecondFactor) => Err(ApiError::SecondFactor),
        Err(LoginError::Elsewhere(elsewhere)) => Err(ask_elsewhere(web, peer, name, password, &elsewhere).await),
        Err(LoginError::Unavailable(error)) => Err(error.into()),
    }
}

/// Why somebody whose mailbox is on an old server is not signed in. Only who has the password hears that it is there.
async fn ask_elsewhere(
    web: &Inner,
    peer: Peer,
    name: &str,
    password: &Secret<String>,
    elsewhere: &Elsewhere,
) -> ApiError {
    let (services, server) = (&web.services, &elsewhere.server);
    let protocol = server.endpoint(Protocol::Web).and_then(|(protocol, endpoint)| {
        let spoken = match protocol {
            Protocol::Imap => legacy::Protocol::Imap,
            Protocol::Pop3 => legacy::Protocol::Pop3,
            Protocol::Submission => legacy::Protocol::Submission,
            Protocol::ManageSieve | Protocol::Web => return None,
        };
        Some((spoken, endpoint))
    });
    let Some((protocol, endpoint)) = protocol else { return ApiError::Failed };
    let place = legacy::Place { endpoint, trust: &server.trust, proxy_protocol: server.proxy_protocol };
    let client = legacy::Client { address: SocketAddr::new(peer.address, 0), helo: "", name, password };
    match services.legacy.sign_in(protocol, place, client).await {
        Ok(_) | Err(legacy::Failure::InUse) => {
            if let Err(error) = services.directory.accepted_elsewhere(elsewhere, password).await {
                tracing::warn!(event = base::event::STORE_FAILED, %error);
            }
            ApiError::Elsewhere
        }
        Err(legacy::Failure::Refused) => {
            tokio::time::sleep(services.directory.refused_elsewhere(peer.address)).await;
            ApiError::SignIn { offer_basic: false }
        }
        Err(legacy::Failure::Unavailable(_)) => ApiError::Failed,
    }
}

/// Refuses what another site makes a browser send.
pub(crate) fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("invalid"));
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return Err(ApiError::Forbidden);
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => Ok(()),
        (Some(origin), Some(host)) => {
            let from = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if from.is_some_and(|from| from.eq_ignore_ascii_case(host)) { Ok(()) } else { Err(ApiError::Forbidden) }
        }
        (Some(_), None) => Err(ApiError::Forbidden),
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

pub(crate) fn basic(headers: &HeaderMap) -> Option<(String, Secret<String>)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Secret::new(BASE64_STANDARD.decode(encoded.trim()).ok()?);
    let (name, password) = std::str::from_utf8(decoded.reveal()).ok()?.split_once(':')?;
    Some((name.to_owned(), Secret::new(password.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_are_refused() {
        for (origin, site, expected) in [
            (None, None, true),
            (Some("https://mail.example"), Some("same-origin"), true),
            (Some("http://MAIL.example"), None, true),
            (Some("https://evil.example"), None, false),
            (Some("https://mail.example.evil.example"), None, false),
            (Some("null"), None, false),
            (None, Some("cross-site"), false),
            (None, Some("same-site"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "mail.example".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            assert_eq!(check_origin(&headers).is_ok(), expected, "{origin:?} {site:?}");
        }
    }
}
