//! Who asks: a cookie of a session, or HTTP Basic for other clients.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use base::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use directory::{Access, Account, Elsewhere, Hold, Login, LoginError, Protocol, WebSession};
use subtle::ConstantTimeEq as _;
use trail::Scope;

use crate::error::ApiError;
use crate::server::{Inner, Peer};

/// Header that repeats the session's token on calls that change something.
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";

/// A signed-in account. Taking it as an argument is what protects a route.
pub(crate) struct Viewer {
    pub account: Account,
    /// `None` with HTTP Basic.
    pub session: Option<WebSession>,
}

/// A signed-in administrator.
pub(crate) struct Administrator(pub Viewer);

impl Viewer {
    /// What of the log this account may see.
    pub fn scope(&self) -> Scope {
        match self.account.access {
            Access::User => Scope::Account(self.account.id),
            Access::Admin => Scope::System,
        }
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
            return Ok(Self { account, session: Some(session) });
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
        let account = sign_in(web, peer, &name, &password).await?;
        Ok(Self { account, session: None })
    }
}

impl FromRequestParts<Arc<Inner>> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Arc<Inner>) -> Result<Self, ApiError> {
        let viewer = Viewer::from_request_parts(parts, web).await?;
        match viewer.account.access {
            Access::Admin => Ok(Self(viewer)),
            Access::User => Err(ApiError::Forbidden),
        }
    }
}

/// Checks a password; a failure is answered after the delay that the directory asks for.
pub(crate) async fn sign_in(
    web: &Inner,
    peer: Peer,
    name: &str,
    password: &Secret<String>,
) -> Result<Account, ApiError> {
    let login = Login { name, password, protocol: Protocol::Web, peer: peer.address };
    match web.services.directory.authenticate(login).await {
        Ok(account) => Ok(account),
        Err(LoginError::Refused { delay }) => {
            tokio::time::sleep(delay).await;
            Err(ApiError::SignIn { offer_basic: false })
        }
        Err(LoginError::TooMany) => Err(ApiError::TooManyAttempts),
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
