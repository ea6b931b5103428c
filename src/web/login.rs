//! Signing in and out, without scripts.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use base::Secret;
use directory::Account;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use serde_json::json;
use trail::{Event, Kind, Party};

use crate::auth::{check_origin, sign_in};
use crate::error::ApiError;
use crate::operations::Desk;
use crate::security::{PLAIN_POLICY, set_policy};
use crate::server::{Inner, Peer};

/// What the form sends.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    /// Of the second factor; blanks do not count.
    #[serde(default)]
    code: String,
}

/// Longest password looked at; hashing is work.
const PASSWORD_MAX: usize = 1024;

/// Texts of the page.
struct Words {
    language: &'static str,
    title: &'static str,
    name: &'static str,
    password: &'static str,
    button: &'static str,
    refused: &'static str,
    too_many: &'static str,
    insecure: &'static str,
    unavailable: &'static str,
    elsewhere: &'static str,
    code: &'static str,
    code_hint: &'static str,
    code_refused: &'static str,
    by_mail: &'static str,
    by_mail_hint: &'static str,
    by_mail_button: &'static str,
    by_mail_sent: &'static str,
    by_mail_open: &'static str,
    by_mail_gone: &'static str,
}

const ENGLISH: Words = Words {
    language: "en",
    title: "Sign in",
    name: "E-mail address",
    password: "Password",
    button: "Sign in",
    refused: "Address or password is wrong.",
    too_many: "Too many failed attempts. Please wait a quarter of an hour.",
    insecure: "This connection is not encrypted. Please sign in over https.",
    unavailable: "Signing in is not possible right now. Please try again in a moment.",
    elsewhere: "Your mailbox has not been moved to this system yet. Please go on reading your mail with your mail program, or \
                in the webmail that you know.",
    code: "Code",
    code_hint: "Six digits from your authenticator, or one of your recovery codes.",
    code_refused: "The code is wrong or was used already.",
    by_mail: "No password? Sign in by mail",
    by_mail_hint: "If your mail goes on from here to a server of your own, we send you a link that shows what is held back.",
    by_mail_button: "Send me a link",
    by_mail_sent: "If this address has no mailbox here and its mail goes through this system, a link is on its way. It counts \
                   for half an hour.",
    by_mail_open: "See what is held back of your mail.",
    by_mail_gone: "This link does not count any more: it was used already, or it is too old.",
};
const GERMAN: Words = Words {
    language: "de",
    title: "Anmelden",
    name: "E-Mail-Adresse",
    password: "Passwort",
    button: "Anmelden",
    refused: "Adresse oder Passwort ist falsch.",
    too_many: "Zu viele Fehlversuche. Bitte warten Sie eine Viertelstunde.",
    insecure: "Diese Verbindung ist nicht verschlüsselt. Bitte melden Sie sich über https an.",
    unavailable: "Die Anmeldung ist gerade nicht möglich. Bitte versuchen Sie es gleich noch einmal.",
    elsewhere: "Ihr Postfach ist noch nicht auf dieses System umgezogen. Bitte lesen Sie Ihre Post weiterhin mit Ihrem \
                E-Mail-Programm oder im gewohnten Webmail.",
    code: "Code",
    code_hint: "Sechs Ziffern aus Ihrer Authentifizierungs-App oder einer Ihrer Wiederherstellungscodes.",
    code_refused: "Der Code ist falsch oder wurde schon benutzt.",
    by_mail: "Kein Passwort? Per E-Mail anmelden",
    by_mail_hint: "Geht Ihre Post von hier an einen eigenen Server weiter, senden wir Ihnen einen Verweis, der zeigt, was \
                   zurückgehalten wird.",
    by_mail_button: "Verweis zusenden",
    by_mail_sent: "Hat diese Adresse hier kein Postfach und geht ihre Post durch dieses System, ist ein Verweis unterwegs. Er \
                   gilt eine halbe Stunde.",
    by_mail_open: "Sehen Sie, was von Ihrer Post zurückgehalten wird.",
    by_mail_gone: "Dieser Verweis gilt nicht mehr: Er wurde schon benutzt oder ist zu alt.",
};
const ITALIAN: Words = Words {
    language: "it",
    title: "Accesso",
    name: "Indirizzo e-mail",
    password: "Password",
    button: "Accedi",
    refused: "Indirizzo o password non corretti.",
    too_many: "Troppi tentativi falliti. Attenda un quarto d'ora.",
    insecure: "Questa connessione non è cifrata. Acceda tramite https.",
    unavailable: "Al momento l'accesso non è possibile. Riprovi tra poco.",
    elsewhere: "La Sua casella non è ancora stata trasferita su questo sistema. Continui a leggere la posta con il Suo \
                programma di posta o con la webmail consueta.",
    code: "Codice",
    code_hint: "Sei cifre dalla Sua app di autenticazione oppure uno dei Suoi codici di recupero.",
    code_refused: "Il codice è errato o è già stato usato.",
    by_mail: "Nessuna password? Accesso tramite e-mail",
    by_mail_hint: "Se la Sua posta prosegue da qui verso un Suo server, Le inviamo un collegamento che mostra ciò che è \
                   trattenuto.",
    by_mail_button: "Invia il collegamento",
    by_mail_sent: "Se questo indirizzo non ha una casella qui e la sua posta passa da questo sistema, un collegamento è in \
                   arrivo. Vale mezz'ora.",
    by_mail_open: "Veda ciò che è trattenuto della Sua posta.",
    by_mail_gone: "Questo collegamento non è più valido: è già stato usato, oppure è troppo vecchio.",
};

pub(crate) async fn page(
    State(web): State<Arc<Inner>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if matches!(web.session(&headers, peer).await, Ok(Some(_))) {
        return Redirect::to("/mail").into_response();
    }
    show(StatusCode::OK, words(&headers), "", None)
}

pub(crate) async fn submit(
    State(web): State<Arc<Inner>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    form: Result<Form<Credentials>, FormRejection>,
) -> Response {
    let words = words(&headers);
    if let Err(error) = check_origin(&headers) {
        return error.into_response();
    }
    let Ok(Form(Credentials { name, password, code })) = form else {
        return show(StatusCode::BAD_REQUEST, words, "", Some(words.refused));
    };
    let password = Secret::new(password);
    if web.check_plain_login(peer).is_err() {
        return show(StatusCode::FORBIDDEN, words, &name, Some(words.insecure));
    }
    let name = name.trim();
    if name.len() > 320 || password.reveal().len() > PASSWORD_MAX {
        return show(StatusCode::UNAUTHORIZED, words, "", Some(words.refused));
    }
    let now = web.services.clock.utc();
    let event = |kind| {
        let event = Event::new(now, kind).field("login", name).field("protocol", "web");
        event.field("client", peer.address.to_string())
    };
    let code = Some(code.trim()).filter(|code| !code.is_empty());
    match sign_in(&web, peer, name, &password, code).await {
        Ok(account) => match open_session(&web, &account, event(Kind::LoginAccepted), &headers, peer).await {
            Some(signed_in) => signed_in,
            None => show(StatusCode::SERVICE_UNAVAILABLE, words, name, Some(words.unavailable)),
        },
        Err(ApiError::TooManyAttempts) => show(StatusCode::TOO_MANY_REQUESTS, words, name, Some(words.too_many)),
        Err(ApiError::Elsewhere) => {
            web.services.trail.record(event(Kind::LoginRefused).field("reason", "elsewhere"));
            show(StatusCode::FORBIDDEN, words, name, Some(words.elsewhere))
        }
        Err(ApiError::SecondFactor) => ask_code(words, name, password.reveal(), None),
        Err(ApiError::SignIn { .. }) => {
            web.services.trail.record(event(Kind::LoginRefused));
            match code {
                Some(_) => ask_code(words, name, password.reveal(), Some(words.code_refused)),
                None => show(StatusCode::UNAUTHORIZED, words, name, Some(words.refused)),
            }
        }
        Err(_) => show(StatusCode::SERVICE_UNAVAILABLE, words, name, Some(words.unavailable)),
    }
}

/// What the form for a link sends.
#[derive(Deserialize)]
pub(crate) struct Named {
    #[serde(default)]
    name: String,
}

/// The answer takes so long, whether there is somebody to send a link to or not.
const ANSWER_AFTER: Duration = Duration::from_millis(600);

pub(crate) async fn ask_link(headers: HeaderMap) -> Response {
    show_ask_link(StatusCode::OK, words(&headers), None)
}

/// Sends a link to whom mail goes on from here, and tells nobody whether there is such an address.
pub(crate) async fn send_link(
    State(web): State<Arc<Inner>>,
    headers: HeaderMap,
    form: Result<Form<Named>, FormRejection>,
) -> Response {
    let words = words(&headers);
    if let Err(error) = check_origin(&headers) {
        return error.into_response();
    }
    let Ok(Form(Named { name })) = form else { return show_ask_link(StatusCode::BAD_REQUEST, words, None) };
    let name = name.trim();
    if name.len() > 320 || !name.contains('@') {
        return show_ask_link(StatusCode::BAD_REQUEST, words, None);
    }
    let request = json!({ "sign-in-link": { "account": name } });
    let (sent, ()) = tokio::join!(web.operate(Desk::People, request), tokio::time::sleep(ANSWER_AFTER));
    match sent {
        Ok(_) | Err(ApiError::NotFound | ApiError::Invalid(_)) => {}
        Err(_) => return show_ask_link(StatusCode::SERVICE_UNAVAILABLE, words, Some(words.unavailable)),
    }
    whole(StatusCode::OK, words, &html! { p role="status" { (words.by_mail_sent) } })
}

/// Programs that look at mail follow links by themselves: a person presses the button.
pub(crate) async fn link(Path(token): Path<String>, headers: HeaderMap) -> Response {
    let words = words(&headers);
    let action = format!("/login/mail/{token}");
    let fields = html! { p { (words.by_mail_open) } };
    form(StatusCode::OK, words, Asks { action: &action, fields: &fields, button: words.button, more: &html! {} }, None)
}

pub(crate) async fn enter(
    State(web): State<Arc<Inner>>,
    Path(token): Path<String>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let words = words(&headers);
    if let Err(error) = check_origin(&headers) {
        return error.into_response();
    }
    if web.check_plain_login(peer).is_err() {
        return show_ask_link(StatusCode::FORBIDDEN, words, Some(words.insecure));
    }
    let account = match web.services.registry.take_sign_in_link(&token).await {
        Ok(Some(account)) => account,
        Ok(None) => return show_ask_link(StatusCode::NOT_FOUND, words, Some(words.by_mail_gone)),
        Err(_) => return show_ask_link(StatusCode::SERVICE_UNAVAILABLE, words, Some(words.unavailable)),
    };
    let event = Event::new(web.services.clock.utc(), Kind::LoginAccepted).field("login", account.address.to_string());
    let event =
        event.field("protocol", "web").field("by", "a link in a mail").field("client", peer.address.to_string());
    match open_session(&web, &account, event, &headers, peer).await {
        Some(signed_in) => signed_in,
        None => show_ask_link(StatusCode::SERVICE_UNAVAILABLE, words, Some(words.unavailable)),
    }
}

/// Signs the browser in and leads it inside; `None`: not now.
async fn open_session(
    web: &Inner,
    account: &Account,
    event: Event,
    headers: &HeaderMap,
    peer: Peer,
) -> Option<Response> {
    if let Some(old) = Inner::cookie(headers, peer) {
        let _ = web.sessions.close(old).await;
    }
    let key = web.sessions.open(account.id).await.ok()?;
    let address = account.address.to_string();
    let party = Party { address, account: Some(account.id), is_recipient: false, outcome: None };
    web.services.trail.record(event.party(party));
    let inside = if account.is_relayed { "/filter" } else { "/mail" };
    Some(with_cookie(Redirect::to(inside).into_response(), peer, &key, None))
}

fn show_ask_link(status: StatusCode, words: &Words, problem: Option<&str>) -> Response {
    let fields = html! {
        p #hint { (words.by_mail_hint) }
        label for="name" { (words.name) }
        input #name name="name" type="email" inputmode="email" autocomplete="username" aria-describedby="hint" required autofocus;
    };
    let more = html! { p { a href="/login" { (words.title) } } };
    let asks = Asks { action: "/login/mail", fields: &fields, button: words.by_mail_button, more: &more };
    form(status, words, asks, problem)
}

/// Needs no token: the cookie is not sent across sites, and signing somebody out is all one could do.
pub(crate) async fn leave(
    State(web): State<Arc<Inner>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(error) = check_origin(&headers) {
        return error.into_response();
    }
    // The cookie goes only with the session.
    if let Some(key) = Inner::cookie(&headers, peer)
        && let Err(error) = web.sessions.close(key).await
    {
        return error.into_response();
    }
    let mut response = with_cookie(Redirect::to("/login").into_response(), peer, "", Some(0));
    let clear = HeaderValue::from_static("\"cache\", \"storage\"");
    response.headers_mut().insert("clear-site-data", clear);
    response
}

pub(crate) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")], STYLE)
        .into_response()
}

fn with_cookie(mut response: Response, peer: Peer, value: &str, max_age: Option<u32>) -> Response {
    let secure = if peer.is_tls { "; Secure" } else { "" };
    let max_age = max_age.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    let name = Inner::cookie_name(peer);
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{max_age}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The first language asked for that we speak.
fn words(headers: &HeaderMap) -> &'static Words {
    let wanted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut languages = wanted.split(',').map(|language| language.trim().get(..2).unwrap_or_default());
    let known = [&ENGLISH, &GERMAN, &ITALIAN];
    let spoken = |language: &str| known.into_iter().find(|words| words.language.eq_ignore_ascii_case(language));
    languages.find_map(spoken).unwrap_or(&ENGLISH)
}

/// The language of the pages for who is not signed in.
pub(crate) fn language(headers: &HeaderMap) -> &'static str {
    words(headers).language
}

fn show(status: StatusCode, words: &Words, name: &str, problem: Option<&str>) -> Response {
    let fields = html! {
        label for="name" { (words.name) }
        input #name name="name" type="email" inputmode="email" autocomplete="username" value=(name) required
            autofocus[name.is_empty()];
        label for="password" { (words.password) }
        input #password name="password" type="password" autocomplete="current-password" required
            autofocus[!name.is_empty()];
    };
    let more = html! { p { a href="/login/mail" { (words.by_mail) } } };
    form(status, words, Asks { action: "/login", fields: &fields, button: words.button, more: &more }, problem)
}

/// The second step: the password was right. It goes the same way once more, by the same form.
fn ask_code(words: &Words, name: &str, password: &str, problem: Option<&str>) -> Response {
    let fields = html! {
        input name="name" type="hidden" value=(name);
        input name="password" type="hidden" value=(password);
        label for="code" { (words.code) }
        input #code name="code" inputmode="numeric" autocomplete="one-time-code" aria-describedby="hint" required autofocus;
        p #hint { (words.code_hint) }
    };
    let asks = Asks { action: "/login", fields: &fields, button: words.button, more: &html! {} };
    form(StatusCode::UNAUTHORIZED, words, asks, problem)
}

/// A page with one form.
struct Asks<'a> {
    action: &'a str,
    fields: &'a Markup,
    button: &'a str,
    /// Below the form.
    more: &'a Markup,
}

fn form(status: StatusCode, words: &Words, asks: Asks<'_>, problem: Option<&str>) -> Response {
    let body = html! {
        form method="post" action=(asks.action) {
            @if let Some(problem) = problem {
                p.problem role="alert" { (problem) }
            }
            (asks.fields)
            button type="submit" { (asks.button) }
        }
        (asks.more)
    };
    whole(status, words, &body)
}

fn whole(status: StatusCode, words: &Words, body: &Markup) -> Response {
    let page: Markup = html! {
        (DOCTYPE)
        html lang=(words.language) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (words.title) " · Ortler" }
                link rel="stylesheet" href="/login.css";
            }
            body {
                main {
                    h1 { "Ortler" }
                    (body)
                }
            }
        }
    };
    let mut response = (status, page).into_response();
    set_policy(response.headers_mut(), PLAIN_POLICY);
    response
}

const STYLE: &str = "\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: Canvas; color: CanvasText; }
main { width: min(22rem, calc(100vw - 2rem)); padding: 1rem 0; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
form { display: grid; gap: .5rem; }
input, button { font: inherit; padding: .625rem .75rem; min-height: 2.75rem; box-sizing: border-box; border-radius: .375rem; }
input { border: 1px solid GrayText; background: Field; color: FieldText; margin-bottom: .5rem; }
button { border: 0; background: light-dark(#1f5fbf, #8db8f5); color: light-dark(#fff, #10243f); font-weight: 600; cursor: pointer; }
:focus-visible { outline: 2px solid light-dark(#1f5fbf, #8db8f5); outline-offset: 2px; }
.problem { margin: 0 0 .5rem; padding: .625rem .75rem; border-left: 4px solid #b3261e; background: light-dark(#fdecea, #3a1614); }
";
