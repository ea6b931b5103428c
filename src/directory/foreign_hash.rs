//! Password hashes of other systems, which are checked and then replaced.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pbkdf2::pbkdf2_hmac;
use sha_crypt::{PasswordHashRef, PasswordVerifier as _, ShaCrypt};
use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;

/// A hash whose form was checked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    text: Box<str>,
    form: Form,
}

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Bcrypt,
    /// `$5$` and `$6$`.
    ShaCrypt,
    Md5Crypt {
        salt: Vec<u8>,
    },
    Pbkdf2 {
        prf: Prf,
        rounds: u32,
        salt: Vec<u8>,
        hash: Vec<u8>,
    },
    /// RFC 5802 §3: what is kept is a digest of the client's key.
    Scram {
        prf: Prf,
        rounds: u32,
        salt: Vec<u8>,
        stored_key: Vec<u8>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prf {
    Sha1,
    Sha256,
    Sha512,
}

/// A check that takes longer is refused: somebody could stop the system with it.
const ROUNDS_MAX: u32 = 2_000_000;
const BCRYPT_COST_MAX: u32 = 16;
const SHA_ROUNDS_MAX: u32 = 1_000_000;
const TEXT_MAX: usize = 1000;

impl Prf {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn derive(self, password: &[u8], salt: &[u8], rounds: u32, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        match self {
            Self::Sha1 => pbkdf2_hmac::<Sha1>(password, salt, rounds, &mut out),
            Self::Sha256 => pbkdf2_hmac::<Sha256>(password, salt, rounds, &mut out),
            Self::Sha512 => pbkdf2_hmac::<Sha512>(password, salt, rounds, &mut out),
        }
        out
    }

    fn client_key(self, salted: &[u8]) -> Vec<u8> {
        const WORDS: &[u8] = b"Client Key";
        macro_rules! keyed {
            ($hash:ty) => {{
                let Ok(mac) = Hmac::<$hash>::new_from_slice(salted) else { return Vec::new() };
                mac.chain_update(WORDS).finalize().into_bytes().to_vec()
            }};
        }
        match self {
            Self::Sha1 => keyed!(Sha1),
            Self::Sha256 => keyed!(Sha256),
            Self::Sha512 => keyed!(Sha512),
        }
    }

    fn digest(self, octets: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(octets).to_vec(),
            Self::Sha256 => Sha256::digest(octets).to_vec(),
            Self::Sha512 => Sha512::digest(octets).to_vec(),
        }
    }
}

impl Foreign {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        // Dovecot and OpenLDAP name the scheme before what crypt(3) made.
        let named = ["{CRYPT}", "{BLF-CRYPT}", "{SHA512-CRYPT}", "{SHA256-CRYPT}", "{MD5-CRYPT}"];
        let bare = named.into_iter().find_map(|name| text.strip_prefix(name)).unwrap_or(text);
        let form = if let Some(rest) = text.strip_prefix("{SCRAM-SHA-1}") {
            scram(Prf::Sha1, rest)
        } else if let Some(rest) = text.strip_prefix("{SCRAM-SHA-256}") {
            scram(Prf::Sha256, rest)
        } else if let Some(rest) = text.strip_prefix("{PBKDF2}$1$") {
            dovecot(rest)
        } else if let Some(rest) = text.strip_prefix("$pbkdf2-") {
            passlib(rest)
        } else if let Some(rest) = text.strip_prefix("pbkdf2_") {
            django(rest)
        } else {
            crypt(bare)
        }?;
        // What is checked later is without the name.
        let kept = if matches!(form, Form::Bcrypt | Form::ShaCrypt | Form::Md5Crypt { .. }) { bare } else { text };
        Some(Self { text: kept.into(), form })
    }

    pub(crate) fn matches(&self, password: &[u8]) -> bool {
        match &self.form {
            // It looks at 72 octets, and at none after a zero.
            Form::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Form::ShaCrypt => PasswordHashRef::new(&self.text)
                .is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok()),
            Form::Md5Crypt { salt } => md5crypt::md5crypt(password, salt).ct_eq(self.text.as_bytes()).into(),
            Form::Pbkdf2 { prf, rounds, salt, hash } => {
                prf.derive(password, salt, *rounds, hash.len()).ct_eq(hash).into()
            }
            Form::Scram { prf, rounds, salt, stored_key } => {
                let salted = prf.derive(password, salt, *rounds, prf.size());
                prf.digest(&prf.client_key(&salted)).ct_eq(stored_key).into()
            }
        }
    }
}

fn rounds(text: &str) -> Option<u32> {
    text.parse().ok().filter(|rounds| (1..=ROUNDS_MAX).contains(rounds))
}

fn crypt(text: &str) -> Option<Form> {
    let mut parts = text.strip_prefix('$')?.split('$');
    match (parts.next()?, parts.next()?) {
        ("2a" | "2b" | "2y", cost) => {
            let cost: u32 = cost.parse().ok()?;
            let is_whole = parts.next().is_some_and(|rest| rest.len() == 53) && parts.next().is_none();
            (is_whole && (4..=BCRYPT_COST_MAX).contains(&cost)).then_some(Form::Bcrypt)
        }
        ("5" | "6", first) => {
            let many = first.strip_prefix("rounds=").map(str::parse::<u32>);
            let is_bounded = many.is_none_or(|many| many.is_ok_and(|many| many <= SHA_ROUNDS_MAX));
            let rest = if first.starts_with("rounds=") { parts.nth(1) } else { parts.next() };
            let is_whole = rest.is_some_and(|hash| hash.len() >= 43) && parts.next().is_none();
            (is_bounded && is_whole && PasswordHashRef::new(text).is_ok()).then_some(Form::ShaCrypt)
        }
        ("1", salt) => {
            let is_whole = parts.next().is_some_and(|hash| hash.len() == 22) && parts.next().is_none();
            (is_whole && (1..=8).contains(&salt.len())).then(|| Form::Md5Crypt { salt: salt.as_bytes().to_vec() })
        }
        _ => None,
    }
}

/// `iterations,salt,StoredKey,ServerKey`, in base64.
fn scram(prf: Prf, text: &str) -> Option<Form> {
    let mut parts = text.split(',');
    let (rounds, salt) = (rounds(parts.next()?)?, STANDARD.decode(parts.next()?).ok()?);
    let stored_key = STANDARD.decode(parts.next()?).ok().filter(|key| key.len() == prf.size())?;
    parts.next()?;
    parts.next().is_none().then_some(Form::Scram { prf, rounds, salt, stored_key })
}

/// `salt$rounds$hex`, by SHA-1.
fn dovecot(text: &str) -> Option<Form> {
    let mut parts = text.split('$');
    let (salt, rounds) = (parts.next()?.as_bytes().to_vec(), rounds(parts.next()?)?);
    let hex = parts.next()?;
    let octet = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let hash: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(octet).collect();
    let hash = hash.filter(|hash| hash.len() == Prf::Sha1.size())?;
    parts.next().is_none().then_some(Form::Pbkdf2 { prf: Prf::Sha1, rounds, salt, hash })
}

/// `sha256$rounds$salt$hash`, in base64 with `.` for `+` and without padding.
fn passlib(text: &str) -> Option<Form> {
    let mut parts = text.split('$');
    let (prf, rounds) = (Prf::from_name(parts.next()?)?, rounds(parts.next()?)?);
    let decode = |text: &str| STANDARD_NO_PAD.decode(text.replace('.', "+")).ok();
    let (salt, hash) = (decode(parts.next()?)?, decode(parts.next()?)?);
    (parts.next().is_none() && hash.len() == prf.size()).then_some(Form::Pbkdf2 { prf, rounds, salt, hash })
}

/// `sha256$rounds$salt$hash`: the salt as it is, the hash in base64.
fn django(text: &str) -> Option<Form> {
    let mut parts = text.split('$');
    let (prf, rounds) = (Prf::from_name(parts.next()?)?, rounds(parts.next()?)?);
    let (salt, hash) = (parts.next()?.as_bytes().to_vec(), STANDARD.decode(parts.next()?).ok()?);
    (parts.next().is_none() && hash.len() == prf.size()).then_some(Form::Pbkdf2 { prf, rounds, salt, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each made by another program: crypt(3) of the C library, Python's hashlib, the examples of RFC 5802 and RFC 7677.
    const KNOWN: [(&str, &str); 13] = [
        (
            "$6$saltstring$.r0X7ub5wGR2v4Xz7svCIozfnlorFh19V89t8KC9Umd81uGhFgsyTRNyzQDXDIm17fFcR9z3z7oBNdsyYBbtm/",
            "correct horse",
        ),
        (
            "$6$rounds=5000$another.salt$MAQTMpZa8VZDHl.0Urcddhfk47kvBW90uj3eXwVTryIwtCJgJfG27gHg.jL6Zddt8lIJj4HRu4Z4ktsWp1rzm1",
            "correct horse",
        ),
        ("$5$saltstring$vc6YOOogU4kWVvwga8e9zTFgKcy4tb5LaPxIiPJzqEC", "correct horse"),
        ("$1$saltsalt$NuzA7WTAelpl95xgBGWN60", "correct horse"),
        (
            "{SHA512-CRYPT}$6$umlautsalt$uPOqz78fr8OkE4oy/V8hTAPs0IB/vpG5f4RO0QhaA/g6HGVxNDn70en3KCHNbo1J8YlFilzKdd49yY4FBHJpq0",
            "gr\u{fc}\u{df} dich",
        ),
        ("$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2", "correct horse"),
        ("{BLF-CRYPT}$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2", "correct horse"),
        ("$pbkdf2-sha256$1000$c2FsdHk$DzvaoPDWHNlO.0p5E04mScIUiNVjJ8YpgYitYTNqHo8", "correct horse"),
        (
            "$pbkdf2-sha512$1000$c2FsdHk$zNxd3/xquiA8cIVEroQsutEQ5/yYoaRdgkMeuinPc3i9hx5x6AG.9Us2I/TMp1LN/kzBAu1LH5fJcWiRPxNomg",
            "correct horse",
        ),
        ("{PBKDF2}$1$salty$1000$4392010ba0d85b84238eb9bd274439cb17c556c7", "correct horse"),
        ("pbkdf2_sha256$1000$salty$DzvaoPDWHNlO+0p5E04mScIUiNVjJ8YpgYitYTNqHo8=", "correct horse"),
        ("{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=", "pencil"),
        (
            "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "pencil",
        ),
    ];

    #[test]
    fn hashes_of_other_systems_are_checked() {
        for (text, password) in KNOWN {
            let foreign = Foreign::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert!(foreign.matches(password.as_bytes()), "{text}");
            assert!(!foreign.matches(format!("{password}x").as_bytes()), "{text}");
            assert!(!foreign.matches(b""), "{text}");
            let again = Foreign::parse(foreign.as_str()).unwrap();
            assert!(again == foreign && again.matches(password.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_takes_too_long_or_is_no_hash_is_refused() {
        for text in [
            "$6$rounds=99999999$salt$x",
            "$2b$31$abcdefghijklmnopqrstuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu",
            "$pbkdf2-sha256$99999999$c2FsdA$AAAA",
            "$pbkdf2-md5$1000$c2FsdA$AAAA",
            "{SCRAM-SHA-256}4096,c2FsdA==,AAAA,AAAA",
            "{PBKDF2}$1$salt$1000$zz",
            "$1$saltsaltsalt$qjXMvbEw8oaL.CzflDtaK/",
            "$1$$x",
            "",
        ] {
            assert!(Foreign::parse(text).is_none(), "{text}");
        }
        assert!(Foreign::parse(&format!("$6${}", "x".repeat(5000))).is_none());
    }
}
