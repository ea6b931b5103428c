//! What opens an account beside its password: passwords of single programs, tokens of the API, and a second factor that goes
//! with the password.

use base::{AccountId, Secret, UtcMillis};
use engine::EngineError;
use engine::table::{Columns as _, Row, Statement};
use totp_rs::{Builder, Totp};

use crate::account::Access;
use crate::directory::Protocol;
use crate::error::RegistryError;
use crate::hold::Rights;
use crate::registry::Registry;
use crate::tables::{missing, refused};

/// A password for one program. It opens mail, never the settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppPassword {
    pub id: u64,
    pub name: String,
    /// Where it opens.
    pub protocols: Vec<Protocol>,
    pub created_at: UtcMillis,
    pub expires_at: Option<UtcMillis>,
    /// Within an hour of its last use.
    pub used_at: Option<UtcMillis>,
}

/// A token of the API: it may do what its account may, within its scopes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiToken {
    pub id: u64,
    pub account: AccountId,
    pub name: String,
    /// What it is for, as the API names it.
    pub scopes: Vec<String>,
    pub created_at: UtcMillis,
    pub expires_at: Option<UtcMillis>,
    pub used_at: Option<UtcMillis>,
}

/// A password that was found right: the rights that it gives.
pub(crate) struct Opened {
    pub rights: Rights,
}

const NAME_MAX: usize = 100;
const OF_ACCOUNT_MAX: u64 = 50;
/// Uses closer together are written once.
const USE_STEP_MS: i64 = 3_600_000;
/// Without letters and digits that look alike: 32 of them.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const APP_CHARS: usize = 20;
const TOKEN_CHARS: usize = 40;
pub const TOKEN_PREFIX: &str = "ort_";
const RECOVERY_CODES: usize = 10;
const RECOVERY_CHARS: usize = 10;

/// Random characters; five bits each.
pub(crate) fn random_text(chars: usize) -> String {
    let mut octets = vec![0u8; chars];
    getrandom::fill(&mut octets).expect("the operating system gives random bytes");
    octets.iter().map(|octet| char::from(ALPHABET[usize::from(octet % 32)])).collect()
}

/// In groups of four, as people read it.
fn grouped(text: &str) -> String {
    let groups: Vec<String> =
        text.as_bytes().chunks(4).map(|some| String::from_utf8_lossy(some).into_owned()).collect();
    groups.join("-")
}

/// What was made here is long and random: a digest of it is found by an index, and tells nothing.
pub(crate) fn digest(text: &str) -> Vec<u8> {
    blake3::hash(text.as_bytes()).as_bytes().to_vec()
}

fn as_typed(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).flat_map(char::to_lowercase).collect()
}

fn check_name(name: &str) -> Result<&str, RegistryError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(refused(format!("a name has 1 to {NAME_MAX} characters and no control characters")));
    }
    Ok(name)
}

fn app_rights(digest: &[u8], access: Access, enabled: bool) -> Rights {
    Rights::new(&hex(digest), access, enabled)
}

fn read_app(row: &Row) -> Result<AppPassword, EngineError> {
    Ok(AppPassword {
        id: row.number(0)?,
        name: row.text(1)?.to_owned(),
        protocols: row.text(2)?.split(' ').filter_map(Protocol::from_name).collect(),
        created_at: UtcMillis(row.int(3)?),
        expires_at: row.int_opt(4)?.map(UtcMillis),
        used_at: row.int_opt(5)?.map(UtcMillis),
    })
}

fn read_token(row: &Row) -> Result<ApiToken, EngineError> {
    Ok(ApiToken {
        id: row.number(0)?,
        account: AccountId(row.number(1)?),
        name: row.text(2)?.to_owned(),
        scopes: row.text(3)?.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        created_at: UtcMillis(row.int(4)?),
        expires_at: row.int_opt(5)?.map(UtcMillis),
        used_at: row.int_opt(6)?.map(UtcMillis),
    })
}

const TOKEN: &str = "id, account, name, scopes, created_at, expires_at, used_at";

impl Registry {
    /// Makes a password for a program, and gives it: it is told this once.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] for no protocol, the web's, an empty name, or too many.
    pub async fn add_app_password(
        &self,
        account: AccountId,
        name: &str,
        protocols: &[Protocol],
        expires_at: Option<UtcMillis>,
    ) -> Result<(AppPassword, Secret<String>), RegistryError> {
        let name = check_name(name)?;
        // A browser's session would be the whole account's, without its second factor.
        if protocols.is_empty() || protocols.contains(&Protocol::Web) {
            return Err(refused(
                "an app password opens at least one of imap, pop3, submission, managesieve; not the web",
            ));
        }
        let words: Vec<&str> = protocols.iter().map(|protocol| protocol.as_str()).collect();
        let (text, now) = (random_text(APP_CHARS), self.clock.utc());
        let insert = "INSERT INTO app_password (account, name, digest, protocols, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6) RETURNING id";
        let values = vec![
            account.0.into(),
            name.into(),
            digest(&text).into(),
            words.join(" ").into(),
            now.0.into(),
            expires_at.map(|at| at.0).into(),
        ];
        let steps = vec![has_room("app_password", account), Statement::new(insert, values)];
        let done = self.change_both(steps, None).await?.map_err(|_| too_many("app passwords"))?;
        let id = done.last().and_then(|done| done.rows.first()).map_or(Ok(0), |row| row.number(0))?;
        let (name, protocols) = (name.to_owned(), protocols.to_vec());
        let made = AppPassword { id, name, protocols, created_at: now, expires_at, used_at: None };
        Ok((made, Secret::new(grouped(&text))))
    }

    pub async fn app_passwords(&self, account: AccountId) -> Result<Vec<AppPassword>, EngineError> {
        let text = "SELECT id, name, protocols, created_at, expires_at, used_at FROM app_password WHERE account = $1
            ORDER BY id";
        self.ask_both(text, vec![account.0.into()]).await?.iter().map(read_app).collect()
    }

    /// What it opened ends within seconds, on every node.
    pub async fn delete_app_password(&self, account: AccountId, id: u64) -> Result<(), RegistryError> {
        let text = "DELETE FROM app_password WHERE account = $1 AND id = $2";
        let step = Statement::new(text, vec![account.0.into(), id.into()]).must();
        let done = self.change_both(vec![step], Some(account)).await?;
        done.map(drop).map_err(|_| missing("the app password", &id))
    }

    /// Whether a password is one of the account's for programs, and opens there.
    pub(crate) async fn try_app_password(
        &self,
        account: AccountId,
        (access, enabled): (Access, bool),
        password: &Secret<String>,
        protocol: Protocol,
    ) -> Result<Option<Opened>, EngineError> {
        let typed = as_typed(password.reveal());
        if typed.len() != APP_CHARS {
            return Ok(None);
        }
        let (digest, now) = (digest(&typed), self.clock.utc());
        let text = "SELECT id, name, protocols, created_at, expires_at, used_at FROM app_password
            WHERE digest = $1 AND account = $2";
        let found = self.ask_both(text, vec![digest.clone().into(), account.0.into()]).await?;
        let Some(found) = found.first().map(read_app).transpose()? else { return Ok(None) };
        if !found.protocols.contains(&protocol) || found.expires_at.is_some_and(|at| at <= now) {
            return Ok(None);
        }
        if found.used_at.is_none_or(|at| now.0 - at.0 > USE_STEP_MS) {
            let text = "UPDATE app_password SET used_at = $2 WHERE id = $1";
            // Nobody waits for it, and no cache knows it.
            let noted = self.place().change(vec![Statement::new(text, vec![found.id.into(), now.0.into()])]).await;
            if let Err(error) = noted {
                tracing::debug!(event = base::event::STORE_FAILED, what = "app_password", %error);
            }
        }
        Ok(Some(Opened { rights: app_rights(&digest, access, enabled) }))
    }

    /// The rights of all passwords for programs that still open something.
    pub(crate) async fn app_rights(
        &self,
        account: AccountId,
        (access, enabled): (Access, bool),
    ) -> Result<Vec<Rights>, EngineError> {
        let text = "SELECT digest FROM app_password WHERE account = $1 AND (expires_at IS NULL OR expires_at > $2)";
        let rows = self.ask_both(text, vec![account.0.into(), self.clock.utc().0.into()]).await?;
        rows.iter().map(|row| Ok(app_rights(row.bytes(0)?, access, enabled))).collect()
    }

    /// Ends what was opened by passwords whose time is over.
    pub(crate) async fn end_outlived(&self) -> Result<(), EngineError> {
        let text = "SELECT DISTINCT account FROM app_password WHERE expires_at <= $1";
        for row in self.ask_both(text, vec![self.clock.utc().0.into()]).await? {
            self.revoked(AccountId(row.number(0)?)).await;
        }
        Ok(())
    }

    /// Makes a token of the API, and gives it: it is told this once.
    pub async fn add_api_token(
        &self,
        account: AccountId,
        name: &str,
        scopes: &[String],
        expires_at: Option<UtcMillis>,
    ) -> Result<(ApiToken, Secret<String>), RegistryError> {
        let name = check_name(name)?;
        let (text, now) = (format!("{TOKEN_PREFIX}{}", random_text(TOKEN_CHARS)), self.clock.utc());
        let insert = "INSERT INTO api_token (account, name, digest, scopes, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6) RETURNING id, account, name, scopes, created_at, expires_at, used_at";
        let values = vec![
            account.0.into(),
            name.into(),
            digest(&text).into(),
            scopes.join(" ").into(),
            now.0.into(),
            expires_at.map(|at| at.0).into(),
        ];
        let steps = vec![has_room("api_token", account), Statement::new(insert, values)];
        let done = self.change_both(steps, None).await?.map_err(|_| too_many("tokens"))?;
        let row = done.last().and_then(|done| done.rows.first()).map(read_token);
        let made = row.unwrap_or_else(|| Err(EngineError::damaged("a token was not told")))?;
        Ok((made, Secret::new(text)))
    }

    pub async fn api_tokens(&self, account: AccountId) -> Result<Vec<ApiToken>, EngineError> {
        let text = format!("SELECT {TOKEN} FROM api_token WHERE account = $1 ORDER BY id");
        self.ask_both(&text, vec![account.0.into()]).await?.iter().map(read_token).collect()
    }

    pub async fn delete_api_token(&self, account: AccountId, id: u64) -> Result<(), RegistryError> {
        let text = "DELETE FROM api_token WHERE account = $1 AND id = $2";
        let step = Statement::new(text, vec![account.0.into(), id.into()]).must();
        self.change_both(vec![step], None).await?.map(drop).map_err(|_| missing("the token", &id))
    }

    /// The token of this text, unless its time is over.
    pub async fn api_token(&self, text: &str) -> Result<Option<ApiToken>, EngineError> {
        if !text.starts_with(TOKEN_PREFIX) || text.len() > 100 {
            return Ok(None);
        }
        let query = format!("SELECT {TOKEN} FROM api_token WHERE digest = $1");
        let found = self.ask_both(&query, vec![digest(text).into()]).await?;
        let Some(token) = found.first().map(read_token).transpose()? else { return Ok(None) };
        let now = self.clock.utc();
        if token.expires_at.is_some_and(|at| at <= now) {
            return Ok(None);
        }
        if token.used_at.is_none_or(|at| now.0 - at.0 > USE_STEP_MS) {
            let update = "UPDATE api_token SET used_at = $2 WHERE id = $1";
            let _ = self.place().change(vec![Statement::new(update, vec![token.id.into(), now.0.into()])]).await;
        }
        Ok(Some(token))
    }

    /// Begins a second factor (RFC 6238): the secret for the owner's program, in base 32. It counts from
    /// [`Registry::confirm_second_factor`] on.
    ///
    /// # Errors
    /// [`RegistryError::Exists`] if there is one already.
    pub async fn begin_second_factor(&self, account: AccountId) -> Result<Secret<String>, RegistryError> {
        let mut secret = [0u8; 20];
        getrandom::fill(&mut secret).expect("the operating system gives random bytes");
        let text = "INSERT INTO second_factor (account, secret, last_step, recovery) VALUES ($1, $2, 0, '')
            ON CONFLICT (account) DO UPDATE SET secret = excluded.secret WHERE second_factor.confirmed_at IS NULL";
        let step = Statement::new(text, vec![account.0.into(), secret.to_vec().into()]).must();
        let done = self.change_both(vec![step], None).await?;
        done.map_err(|_| RegistryError::Exists { what: "a second factor of this account".to_owned() })?;
        Ok(Secret::new(totp_rs::Secret::new_stack(secret).to_base32()))
    }

    /// The owner's program shows the right code: from now on the password alone opens nothing. Gives codes for the day when
    /// that program is lost; each works once.
    pub async fn confirm_second_factor(&self, account: AccountId, code: &str) -> Result<Vec<String>, RegistryError> {
        let Some(factor) = self.second_factor(account).await?.filter(|factor| !factor.is_confirmed) else {
            return Err(missing("a second factor that waits, of account", &account.0));
        };
        let step = factor.step_of(code, self.clock.utc()).ok_or_else(|| refused("the code is not right"))?;
        let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| random_text(RECOVERY_CHARS)).collect();
        let digests: Vec<String> = codes.iter().map(|code| hex(&digest(code))).collect();
        let text = "UPDATE second_factor SET confirmed_at = $2, last_step = $3, recovery = $4
            WHERE account = $1 AND confirmed_at IS NULL";
        let values = vec![account.0.into(), self.clock.utc().0.into(), step.into(), digests.join(" ").into()];
        let done = self.change_both(vec![Statement::new(text, values).must()], Some(account)).await?;
        done.map_err(|_| refused("the second factor was changed meanwhile; begin again"))?;
        Ok(codes.iter().map(|code| grouped(code)).collect())
    }

    pub async fn delete_second_factor(&self, account: AccountId) -> Result<(), RegistryError> {
        let step = Statement::new("DELETE FROM second_factor WHERE account = $1", vec![account.0.into()]).must();
        let done = self.change_both(vec![step], Some(account)).await?;
        done.map(drop).map_err(|_| missing("the second factor of account", &account.0))
    }

    /// Whether a code is right; it is not a second time.
    pub(crate) async fn takes_code(&self, account: AccountId, code: &str) -> Result<bool, EngineError> {
        let Some(factor) = self.second_factor(account).await?.filter(|factor| factor.is_confirmed) else {
            return Ok(false);
        };
        let step = match factor.step_of(code, self.clock.utc()) {
            // RFC 6238 §5.2: each once.
            Some(step) => Statement::new(
                "UPDATE second_factor SET last_step = $2 WHERE account = $1 AND last_step < $2",
                vec![account.0.into(), step.into()],
            ),
            None => {
                let used = hex(&digest(&as_typed(code)));
                let Some(left) = factor.without(&used) else { return Ok(false) };
                Statement::new(
                    "UPDATE second_factor SET recovery = $2 WHERE account = $1 AND recovery = $3",
                    vec![account.0.into(), left.into(), factor.recovery.as_str().into()],
                )
            }
        };
        Ok(self.place().change(vec![step.must()]).await?.is_ok())
    }

    async fn second_factor(&self, account: AccountId) -> Result<Option<SecondFactor>, EngineError> {
        let text = "SELECT secret, confirmed_at, recovery FROM second_factor WHERE account = $1";
        let found = self.ask_both(text, vec![account.0.into()]).await?;
        let read = |row: &Row| {
            let secret = row.bytes(0)?.try_into().map_err(|_| EngineError::damaged("a second factor's secret"))?;
            let is_confirmed = row.int_opt(1)?.is_some();
            Ok(SecondFactor { secret, is_confirmed, recovery: row.text(2)?.to_owned() })
        };
        found.first().map(read).transpose()
    }
}

/// A step that undoes the change where the account has as many as it may.
fn has_room(table: &str, account: AccountId) -> Statement {
    let text = format!("SELECT 1 WHERE (SELECT count(*) FROM {table} WHERE account = $1) < $2");
    Statement::new(text, vec![account.0.into(), OF_ACCOUNT_MAX.into()]).must()
}

struct SecondFactor {
    secret: [u8; 20],
    is_confirmed: bool,
    /// Digests, with blanks between them.
    recovery: String,
}

impl SecondFactor {
    fn totp(&self) -> Option<Totp> {
        Builder::new().with_secret(totp_rs::Secret::new_stack(self.secret)).with_skew(1).build().ok()
    }

    /// The step of time that a code is of.
    fn step_of(&self, code: &str, now: UtcMillis) -> Option<u64> {
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        if code.len() != 6 || !code.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        self.totp()?.check(&code, u64::try_from(now.as_secs()).ok()?)
    }

    /// The codes that are left when this one is used; `None` if it is none.
    fn without(&self, used: &str) -> Option<String> {
        let all: Vec<&str> = self.recovery.split(' ').collect();
        let left: Vec<&str> = all.iter().copied().filter(|one| *one != used).collect();
        (left.len() < all.len()).then(|| left.join(" "))
    }
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn too_many(what: &str) -> RegistryError {
    refused(format!("an account has at most {OF_ACCOUNT_MAX} {what}; delete one first"))
}
