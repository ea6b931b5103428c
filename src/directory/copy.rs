//! Moves the directory from one installation to another. It is small: it goes as a whole, in one transaction.

use engine::EngineError;
use engine::table::Kind::{Bool, Bytes, Int, Text};
use engine::table::{Between, Kind, Merge, Place, Side, Step, Table, Value, all_differences};

use crate::error::RegistryError;
use crate::registry::Registry;

type Columns = &'static [(&'static str, Kind)];

const TENANT: Columns = &[
    ("id", Int),
    ("name", Text),
    ("kind", Text),
    ("parent", Int),
    ("quota_bytes", Int),
    ("quota_messages", Int),
    ("created_at", Int),
];

const DOMAIN: Columns =
    &[("id", Int), ("name", Text), ("tenant", Int), ("quota_bytes", Int), ("quota_messages", Int), ("created_at", Int)];

const ACCOUNT: Columns = &[
    ("id", Int),
    ("domain", Int),
    ("folded", Text),
    ("address", Text),
    ("name", Text),
    ("access", Text),
    ("enabled", Bool),
    ("quota_bytes", Int),
    ("quota_messages", Int),
    ("password", Text),
    ("created_at", Int),
];

const ALIAS: Columns = &[("id", Int), ("domain", Int), ("folded", Text), ("created_at", Int)];
const WEB_SESSION: Columns =
    &[("digest", Bytes), ("account", Int), ("csrf", Text), ("opened_at", Int), ("used_at", Int)];
const ALIAS_TARGET: Columns = &[("alias", Int), ("folded", Text)];

const LEGACY_SERVER: Columns = &[
    ("id", Int),
    ("name", Text),
    ("imap", Text),
    ("pop3", Text),
    ("submission", Text),
    ("sieve", Text),
    ("delivery", Text),
    ("trust", Text),
    ("proxy_protocol", Bool),
    ("capture_passwords", Bool),
    ("created_at", Int),
];
const ACCOUNT_LEGACY: Columns = &[("account", Int), ("server", Int)];
const SENDING_LOCK: Columns = &[("account", Int), ("locked_at", Int), ("reason", Text)];
const DOMAIN_KEY: Columns = &[
    ("domain", Text),
    ("selector", Text),
    ("kind", Text),
    ("state", Text),
    ("private_key", Bytes),
    ("public_key", Text),
    ("created_at", Int),
    ("changed_at", Int),
];
const DOMAIN_LEGACY: Columns = &[("domain", Int), ("server", Int)];

const ROLE_GRANT: Columns = &[("account", Int), ("role", Text), ("reach", Text), ("given_by", Text), ("given_at", Int)];
const APP_PASSWORD: Columns = &[
    ("id", Int),
    ("account", Int),
    ("name", Text),
    ("digest", Bytes),
    ("protocols", Text),
    ("created_at", Int),
    ("expires_at", Int),
    ("used_at", Int),
];
const API_TOKEN: Columns = &[
    ("id", Int),
    ("account", Int),
    ("name", Text),
    ("digest", Bytes),
    ("scopes", Text),
    ("created_at", Int),
    ("expires_at", Int),
    ("used_at", Int),
];
const SECOND_FACTOR: Columns =
    &[("account", Int), ("secret", Bytes), ("confirmed_at", Int), ("last_step", Int), ("recovery", Text)];
const FORWARD: Columns =
    &[("account", Int), ("target", Text), ("keeps", Int), ("digest", Bytes), ("asked_at", Int), ("confirmed_at", Int)];
const DOMAIN_ALIAS: Columns = &[("name", Text), ("domain", Int), ("created_at", Int)];
const AUDIT: Columns = &[
    ("id", Int),
    ("noted_at", Int),
    ("noted_by", Text),
    ("action", Text),
    ("object", Text),
    ("reseller", Int),
    ("customer", Int),
    ("domain", Int),
    ("account", Int),
];
const ANSWERED_CALL: Columns =
    &[("account", Int), ("word", Text), ("digest", Bytes), ("status", Int), ("body", Bytes), ("answered_at", Int)];
const DOMAIN_RELAY: Columns = &[("domain", Int), ("hosts", Text), ("lmtp", Int), ("trust", Text), ("verify", Text)];
const SIGN_IN_LINK: Columns = &[("account", Int), ("digest", Bytes), ("made_at", Int)];
const SYSTEM_SECRET: Columns = &[("name", Text), ("value", Bytes)];

/// Each after those that it refers to.
pub(crate) fn tables() -> [Table; 22] {
    [
        Table::plain("tenant", ("tenant", "directory_tenant"), TENANT, 1, false),
        Table::plain("domain", ("domain", "directory_domain"), DOMAIN, 1, false),
        Table::plain("account", ("account", "directory_account"), ACCOUNT, 1, false),
        Table::plain("alias", ("alias", "directory_alias"), ALIAS, 1, false),
        Table::plain("alias_target", ("alias_target", "directory_alias_target"), ALIAS_TARGET, 2, false),
        Table::plain("web_session", ("web_session", "directory_web_session"), WEB_SESSION, 1, false),
        Table::plain("legacy_server", ("legacy_server", "directory_legacy_server"), LEGACY_SERVER, 1, false),
        Table::plain("account_legacy", ("account_legacy", "directory_account_legacy"), ACCOUNT_LEGACY, 1, false),
        Table::plain("sending_lock", ("sending_lock", "directory_sending_lock"), SENDING_LOCK, 1, false),
        Table::plain("domain_key", ("domain_key", "directory_domain_key"), DOMAIN_KEY, 2, false),
        Table::plain("domain_legacy", ("domain_legacy", "directory_domain_legacy"), DOMAIN_LEGACY, 1, false),
        same("role_grant", ROLE_GRANT, 3),
        same("app_password", APP_PASSWORD, 1),
        same("api_token", API_TOKEN, 1),
        same("second_factor", SECOND_FACTOR, 1),
        same("forward", FORWARD, 2),
        same("domain_alias", DOMAIN_ALIAS, 1),
        same("system_secret", SYSTEM_SECRET, 1),
        same("audit", AUDIT, 1),
        same("answered_call", ANSWERED_CALL, 2),
        same("domain_relay", DOMAIN_RELAY, 1),
        same("sign_in_link", SIGN_IN_LINK, 1),
    ]
}

fn same(name: &'static str, columns: Columns, key: usize) -> Table {
    Table::plain(name, (name, name), columns, key, false)
}

/// Tables whose rows are numbered, by their names in either engine; a number is never given twice.
const NUMBERED: [(&str, &str); 8] = [
    ("tenant", "directory_tenant"),
    ("domain", "directory_domain"),
    ("account", "directory_account"),
    ("alias", "directory_alias"),
    ("legacy_server", "directory_legacy_server"),
    ("app_password", "app_password"),
    ("api_token", "api_token"),
    ("audit", "audit"),
];

impl Registry {
    /// Makes the directory in `to` what it is here, and compares it; gives whether something was written. Nobody may use
    /// either meanwhile.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] as [`Registry::check_target`]. Whatever the error, `to` is as it was.
    pub async fn copy_to(&self, to: &Self) -> Result<bool, RegistryError> {
        self.check_target(to).await?;
        if self.compare_with(to).await?.is_empty() {
            return Ok(false);
        }
        let (from, to) = (self.place(), to.place());
        let mut change = to.begin().await?;
        change.replace_all(&tables(), &from).await?;
        for ((name, there), last) in last_numbers(&from).await? {
            // One below the next.
            let (first, is_given) = (last.max(1), last > 0);
            change
                .run(
                    &format!(
                        "INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq)
                         SELECT (SELECT rowid FROM sqlite_sequence WHERE name = '{name}'), '{name}', {last}"
                    ),
                    &format!("SELECT setval(pg_get_serial_sequence('{there}', 'id'), {first}, {is_given})"),
                )
                .await?;
        }
        change.run("", "UPDATE directory_version SET changes = changes + 1").await?;
        change.commit().await?;
        Ok(true)
    }

    /// Where the directory in `to` differs, in words.
    pub async fn compare_with(&self, to: &Self) -> Result<Vec<String>, EngineError> {
        let (from, to) = (self.place(), to.place());
        let between = Between { from: &from, to: &to, owner: None };
        let mut found = all_differences(between, &tables(), "directory").await?;
        let numbers = (last_numbers(&from).await?, last_numbers(&to).await?);
        for (((name, _), one), (_, other)) in numbers.0.iter().zip(&numbers.1) {
            if one != other {
                found.push(format!("directory, {name}: the last number given was {one}, in the target {other}"));
            }
        }
        Ok(found)
    }

    /// Looks whether all accounts and domains in `to` came from here.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] names one that did not.
    pub async fn check_target(&self, to: &Self) -> Result<(), RegistryError> {
        let (from, to) = (self.place(), to.place());
        let [_, domain, account, ..] = tables();
        for (table, name) in [(account, 2), (domain, 1)] {
            let mut merge = Merge::new(Side { place: &from, table: &table }, Side { place: &to, table: &table }, None);
            while let Some(step) = merge.next().await? {
                let foreign = match &step {
                    Step::Gone(row) => row.get(name),
                    Step::Changed { is, was } if is.get(name) != was.get(name) => was.get(name),
                    Step::Changed { .. } | Step::New(_) | Step::Same(_) => None,
                };
                if let Some(foreign) = foreign {
                    let kind = table.name;
                    return Err(RegistryError::Refused {
                        why: format!(
                            "the target has the {kind} {foreign}, which the source does not have; if it was deleted in the source, \
                         delete it in the target too"
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The last number given in each of the numbered tables.
async fn last_numbers(place: &Place) -> Result<Vec<((&'static str, &'static str), i64)>, EngineError> {
    let mut found = Vec::new();
    for (name, there) in NUMBERED {
        let text = match place {
            Place::Sqlite(_) => {
                format!("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{name}'), 0)")
            }
            Place::Postgres(_) => {
                format!("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('{there}', 'id')::regclass), 0)")
            }
        };
        let rows = place.ask(&text, &[Int]).await?;
        let last =
            rows.first().and_then(|row| if let Some(Value::Int(last)) = row.first() { Some(*last) } else { None });
        found.push(((name, there), last.unwrap_or(0)));
    }
    Ok(found)
}
