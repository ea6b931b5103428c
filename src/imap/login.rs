//! Sign-in: LOGIN and AUTHENTICATE with PLAIN and LOGIN.

use base::Secret;
use base::event::{LOGIN_ACCEPTED, LOGIN_REFUSED};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use directory::{Elsewhere, Login, LoginError, Protocol};

use crate::connection::{Connection, Led, Stop};
use crate::proto::{Event, Reply};
use crate::session::Phase;
use crate::wire::Closed;

impl Connection {
    pub async fn login(&mut self, login: &[u8], password: &Secret<Vec<u8>>) -> Result<Reply, Stop> {
        let password = String::from_utf8(password.reveal().clone()).map(Secret::new);
        match (std::str::from_utf8(login), password) {
            (Ok(login), Ok(password)) => self.check(login, &password).await,
            _ => self.refuse_login(std::time::Duration::ZERO).await,
        }
    }

    pub async fn authenticate(&mut self, mechanism: &str, initial: Option<Secret<String>>) -> Result<Reply, Stop> {
        let initial = match initial {
            // RFC 4959 §3
            Some(text) if text.reveal() == "=" => Some(Secret::new(Vec::new())),
            Some(text) => Some(Secret::new(decode(text.reveal().as_bytes())?)),
            None => None,
        };
        match mechanism {
            "PLAIN" => {
                let response = match initial {
                    Some(response) => response,
                    None => self.ask("").await?,
                };
                // RFC 4616: authorization identity, authentication identity, password.
                let fields: Vec<&[u8]> = response.reveal().split(|b| *b == 0).collect();
                let [authorize, login, password] = fields[..] else {
                    return Ok(Reply::bad("Broken PLAIN response"));
                };
                if !authorize.is_empty() && authorize != login {
                    return Ok(Reply::no("AUTHORIZATIONFAILED", "Not allowed to act for others"));
                }
                self.login(login, &Secret::new(password.to_vec())).await
            }
            "LOGIN" => {
                let login = match initial {
                    Some(login) => login,
                    None => self.ask("VXNlcm5hbWU6").await?,
                };
                let password = self.ask("UGFzc3dvcmQ6").await?;
                self.login(login.reveal(), &password).await
            }
            _ => Ok(Reply::no("CANNOT", "Mechanism is not known here")),
        }
    }

    /// One challenge and its response, decoded.
    async fn ask(&mut self, challenge: &str) -> Result<Secret<Vec<u8>>, Stop> {
        self.wire.out.extend_from_slice(format!("+ {challenge}\r\n").as_bytes());
        self.wire.framer.expect_line();
        match self.wire.event(self.config.login_timeout).await? {
            Event::Line(line) if line == b"*" => Err(Reply::bad("Cancelled").into()),
            Event::Line(line) => Ok(Secret::new(decode(Secret::new(line).reveal())?)),
            _ => Err(Reply::bad("Response is too long").into()),
        }
    }

    async fn check(&mut self, name: &str, password: &Secret<String>) -> Result<Reply, Stop> {
        let attempt = Login { name, password, protocol: Protocol::Imap, peer: self.peer.ip(), code: None };
        match self.services.directory.authenticate(attempt).await {
            Ok(account) => {
                tracing::info!(
                    event = LOGIN_ACCEPTED, session = %self.id, protocol = "imap", peer = %self.peer.ip(),
                    account = %account.address
                );
                self.wire.hold = Some(self.services.directory.hold(account.id, Some(account.rights)).await);
                self.session.phase = Phase::Ready(account.id);
                self.wire.framer.command_size_max = self.config.command_size_max.as_usize();
                Ok(self.session.signed_in())
            }
            Err(LoginError::Refused { delay }) => self.refuse_login(delay).await,
            Err(LoginError::TooMany | LoginError::SecondFactor) => {
                self.wire.out.extend_from_slice(b"* BYE [LIMIT] Too many failures, try later\r\n");
                Err(Closed::Done.into())
            }
            Err(LoginError::Elsewhere(elsewhere)) => self.check_elsewhere(&elsewhere, name, password).await,
            Err(LoginError::Unavailable(error)) => {
                tracing::warn!(event = base::event::STORE_FAILED, session = %self.id, %error);
                Ok(Reply::no("UNAVAILABLE", "Sign-in is not available, try later"))
            }
        }
    }

    /// Signs in on the old server where the account's mailbox is, and goes on there.
    async fn check_elsewhere(
        &mut self,
        elsewhere: &Elsewhere,
        name: &str,
        password: &Secret<String>,
    ) -> Result<Reply, Stop> {
        let Elsewhere { account, server } = elsewhere;
        let Some((_, endpoint)) = server.endpoint(Protocol::Imap) else {
            return Ok(Reply::no("UNAVAILABLE", "This mailbox is not available by IMAP"));
        };
        let place = legacy::Place { endpoint, trust: &server.trust, proxy_protocol: server.proxy_protocol };
        let client = legacy::Client { address: self.peer, helo: "", name, password };
        match self.services.legacy.sign_in(legacy::Protocol::Imap, place, client).await {
            Ok(opened) => {
                tracing::info!(
                    event = LOGIN_ACCEPTED, session = %self.id, protocol = "imap", peer = %self.peer.ip(),
                    account = %account.address, legacy = server.name
                );
                if let Err(error) = self.services.directory.accepted_elsewhere(elsewhere, password).await {
                    tracing::warn!(event = base::event::STORE_FAILED, session = %self.id, %error);
                }
                let reply = Reply::ok("Signed in").with_code(format!("CAPABILITY {}", opened.capability));
                self.led = Some(Led::Legacy(Box::new(opened)));
                Ok(reply)
            }
            Err(legacy::Failure::Refused) => {
                let delay = self.services.directory.refused_elsewhere(self.peer.ip());
                self.refuse_login(delay).await
            }
            Err(legacy::Failure::InUse | legacy::Failure::Unavailable(_)) => {
                Ok(Reply::no("UNAVAILABLE", "The server of this mailbox does not answer, try later"))
            }
        }
    }

    /// Answers after `delay`; the last failure allowed closes.
    async fn refuse_login(&mut self, delay: std::time::Duration) -> Result<Reply, Stop> {
        self.session.failures += 1;
        tracing::info!(event = LOGIN_REFUSED, session = %self.id, protocol = "imap", peer = %self.peer.ip());
        tokio::time::sleep(delay).await;
        if self.session.failures >= self.config.login_failures_max {
            self.wire.out.extend_from_slice(b"* BYE [AUTHENTICATIONFAILED] Too many failures\r\n");
            return Err(Closed::Done.into());
        }
        Ok(Reply::no("AUTHENTICATIONFAILED", "Wrong name or password"))
    }
}

fn decode(text: &[u8]) -> Result<Vec<u8>, Reply> {
    STANDARD.decode(text.trim_ascii()).map_err(|_| Reply::bad("Response is not base 64"))
}
