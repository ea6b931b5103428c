//! Stored passwords.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, PasswordHash as PhcString};
use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest as _;
use subtle::ConstantTimeEq as _;

use crate::foreign_hash::Foreign;

/// A password as it is kept. Text forms: `$argon2id$…` (ours); those that other systems use (`{SSHA}…` and its kin, the
/// forms of `crypt(3)`, PBKDF2, SCRAM: see [`InvalidHash`]), which give way to ours when their owner signs in; and `{PLAIN}…`
/// (only for tests and for accounts whose password a machine must know).
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Argon2(Box<str>),
    SaltedSha { digest: Sha, hash: Vec<u8>, salt: Vec<u8> },
    Foreign(Foreign),
    Plain(Box<str>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sha {
    One,
    Two256,
    Two512,
}

impl Sha {
    /// Longer names go before those that they begin with.
    const ALL: [(Self, &'static str, usize); 6] = [
        (Self::Two256, "{SSHA256}", 32),
        (Self::Two512, "{SSHA512}", 64),
        (Self::One, "{SSHA}", 20),
        (Self::Two256, "{SHA256}", 32),
        (Self::Two512, "{SHA512}", 64),
        (Self::One, "{SHA}", 20),
    ];

    fn of(self, password: &[u8], salt: &[u8]) -> Vec<u8> {
        match self {
            Self::One => sha1::Sha1::new().chain_update(password).chain_update(salt).finalize().to_vec(),
            Self::Two256 => sha2::Sha256::new().chain_update(password).chain_update(salt).finalize().to_vec(),
            Self::Two512 => sha2::Sha512::new().chain_update(password).chain_update(salt).finalize().to_vec(),
        }
    }
}

impl PasswordHash {
    /// Hashes with argon2id and a fresh salt. Costs tens of milliseconds of CPU: call it where that may block.
    pub fn make(password: &Secret<String>) -> Self {
        let phc = Argon2::default()
            .hash_password(password.reveal().as_bytes())
            .expect("the default parameters and a generated salt are valid");
        Self(Kind::Argon2(phc.to_string().into()))
    }

    /// What no password matches: for an account whose password is known elsewhere.
    pub fn of_nobody() -> Self {
        let mut hash = vec![0; 64];
        getrandom::fill(&mut hash).expect("the operating system gives random bytes");
        Self(Kind::SaltedSha { digest: Sha::Two512, hash, salt: b"nobody".to_vec() })
    }

    /// Compares; argon2 costs tens of milliseconds of CPU: call it where that may block.
    pub fn matches(&self, password: &Secret<String>) -> bool {
        let password = password.reveal().as_bytes();
        match &self.0 {
            Kind::Argon2(phc) => {
                PhcString::new(phc).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
            }
            Kind::SaltedSha { digest, hash, salt } => digest.of(password, salt).ct_eq(hash).into(),
            Kind::Foreign(foreign) => foreign.matches(password),
            Kind::Plain(plain) => plain.as_bytes().ct_eq(password).into(),
        }
    }

    /// True if a check is so cheap that caching its outcome gains nothing.
    pub(crate) const fn is_cheap(&self) -> bool {
        matches!(self.0, Kind::SaltedSha { .. } | Kind::Plain(_))
    }

    /// True if it was taken over from another system, and one of ours should take its place.
    pub(crate) const fn is_foreign(&self) -> bool {
        matches!(self.0, Kind::SaltedSha { .. } | Kind::Foreign(_))
    }

    /// The text form, for the table.
    pub(crate) fn to_stored(&self) -> String {
        match &self.0 {
            Kind::Argon2(phc) => phc.to_string(),
            Kind::SaltedSha { digest, hash, salt } => {
                // Without salt, the salted form reads the same.
                let name = Sha::ALL.iter().find(|(sha, _, _)| sha == digest).map_or("", |(_, name, _)| name);
                format!("{name}{}", STANDARD.encode([hash.as_slice(), salt].concat()))
            }
            Kind::Foreign(foreign) => foreign.as_str().to_owned(),
            Kind::Plain(plain) => format!("{{PLAIN}}{plain}"),
        }
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The text is no hash in a form we can check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a password hash: expected $argon2id$…, {{SSHA}}…, {{SSHA256}}…, {{SSHA512}}…, {{SHA}}…, $2b$… (bcrypt), $6$…, $5$…, \
     $1$… (crypt), $pbkdf2-sha256$…, {{PBKDF2}}$1$…, {{SCRAM-SHA-256}}… or {{PLAIN}}…"
)]
pub struct InvalidHash;

impl FromStr for PasswordHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        if let Some(plain) = text.strip_prefix("{PLAIN}").filter(|plain| !plain.is_empty()) {
            return Ok(Self(Kind::Plain(plain.into())));
        }
        for (digest, name, length) in Sha::ALL {
            let Some(encoded) = text.strip_prefix(name) else { continue };
            let bytes = STANDARD.decode(encoded).map_err(|_| InvalidHash)?;
            let (hash, salt) = bytes.split_at_checked(length).ok_or(InvalidHash)?;
            return Ok(Self(Kind::SaltedSha { digest, hash: hash.to_vec(), salt: salt.to_vec() }));
        }
        if let Ok(hash) = PhcString::new(text)
            && hash.algorithm.as_str() == "argon2id"
        {
            return Ok(Self(Kind::Argon2(text.into())));
        }
        Foreign::parse(text).map(|foreign| Self(Kind::Foreign(foreign))).ok_or(InvalidHash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: &str, password: &str) -> bool {
        stored.parse::<PasswordHash>().unwrap().matches(&Secret::new(password.to_owned()))
    }

    #[test]
    fn foreign_hashes_are_checked() {
        // base64(sha1("demo" + "salt") + "salt")
        let digest = sha1::Sha1::new().chain_update(b"demo").chain_update(b"salt").finalize();
        let ssha = format!("{{SSHA}}{}", STANDARD.encode([digest.as_slice(), b"salt"].concat()));
        assert!(check(&ssha, "demo") && !check(&ssha, "Demo"));
        assert!(check("{PLAIN}secret", "secret") && !check("{PLAIN}secret", "secre"));
        assert_eq!(ssha.parse::<PasswordHash>().unwrap().to_stored(), ssha);
    }

    #[test]
    fn own_hashes_differ_and_match() {
        let password = Secret::new("correct horse".to_owned());
        let (one, two) = (PasswordHash::make(&password), PasswordHash::make(&password));
        assert!(
            one != two && one.matches(&password) && two.to_stored().parse::<PasswordHash>().unwrap().matches(&password)
        );
        assert!(!one.matches(&Secret::new(String::new())));
        let nobody = PasswordHash::of_nobody();
        assert!(nobody != PasswordHash::of_nobody() && nobody.to_stored().parse() == Ok(nobody.clone()));
        assert!(!nobody.matches(&password) && !nobody.matches(&Secret::new(String::new())));
    }

    #[test]
    fn what_is_no_hash() {
        for text in
            ["", "secret", "{PLAIN}", "{SSHA}xx", "{MD5}abc", "$argon2id$", "$2b$10$abc", "{CRYPT}x", "$6$", "$7$a$b"]
        {
            assert_eq!(text.parse::<PasswordHash>(), Err(InvalidHash), "{text}");
        }
    }
}
