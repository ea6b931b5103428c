//! Roles that accounts hold, where their mail goes besides, and further names of domains.

use std::collections::BTreeMap;

use access::{Grant, Position, Reach, Role};
use base::{AccountId, DomainId, TenantId, UtcMillis};
use engine::EngineError;
use engine::table::{Columns as _, Place, Row, Statement};
use mail::{Address, Domain};

use crate::account::{DomainEntry, Tenant};
use crate::credential::{digest, hex, random_text};
use crate::error::RegistryError;
use crate::registry::Registry;
use crate::tables::{Listing, exists, missing, refused, within};

/// A role that an account holds, and who gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantEntry {
    pub account: AccountId,
    pub address: Address,
    pub grant: Grant,
    pub given_by: String,
    pub given_at: UtcMillis,
}

/// Where an account's mail goes, too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    pub target: Address,
    pub asked_at: UtcMillis,
    /// `None`: whoever reads there has not agreed yet, and nothing goes there.
    pub confirmed_at: Option<UtcMillis>,
}

const FORWARDS_MAX: usize = 20;
const TOKEN_CHARS: usize = 32;
/// Who is asked answers within so long.
const CONFIRM_WITHIN_MS: i64 = 14 * 86_400_000;
const SECRET_MAX: usize = 64;

impl Registry {
    /// # Errors
    /// [`RegistryError::Refused`] where a role cannot be held there, [`RegistryError::Exists`].
    pub async fn grant(&self, account: AccountId, grant: Grant, by: &str) -> Result<(), RegistryError> {
        if !grant.role.fits(grant.reach) {
            let role = grant.role.as_str();
            let place = match grant.role {
                Role::Reseller | Role::CustomerAdmin => "for a tenant",
                Role::DomainAdmin => "for a domain",
                _ => "for the whole system",
            };
            return Err(refused(format!("the role {role} is held {place}")));
        }
        let text = "INSERT INTO role_grant (account, role, reach, given_by, given_at) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (account, role, reach) DO NOTHING";
        let values = vec![
            account.0.into(),
            grant.role.as_str().into(),
            grant.reach.to_string().into(),
            by.into(),
            self.clock.utc().0.into(),
        ];
        let done = self.change_both(vec![Statement::new(text, values).must()], Some(account)).await?;
        done.map(drop).map_err(|_| exists("the role", grant.role.as_str()))
    }

    pub async fn revoke(&self, account: AccountId, grant: Grant) -> Result<(), RegistryError> {
        let text = "DELETE FROM role_grant WHERE account = $1 AND role = $2 AND reach = $3";
        let values = vec![account.0.into(), grant.role.as_str().into(), grant.reach.to_string().into()];
        let done = self.change_both(vec![Statement::new(text, values).must()], Some(account)).await?;
        done.map(drop).map_err(|_| missing("the role", grant.role.as_str()))
    }

    /// All roles, by address; of one account, if it is named.
    pub async fn grants(&self, account: Option<AccountId>) -> Result<Vec<GrantEntry>, EngineError> {
        let table = self.table("account");
        let text = format!(
            "SELECT g.account, a.address, g.role, g.reach, g.given_by, g.given_at FROM role_grant g
             JOIN {table} a ON a.id = g.account WHERE CAST($1 AS bigint) IS NULL OR g.account = $1
             ORDER BY a.folded, g.role, g.reach"
        );
        let rows = self.ask_both(&text, vec![account.map(|account| account.0).into()]).await?;
        let read = |row: &Row| {
            // One of a later version is none here.
            let (role, reach) = (Role::from_name(row.text(2)?), row.text(3)?.parse().ok());
            let (Some(role), Some(reach)) = (role, reach) else { return Ok(None) };
            let address = row.text(1)?.parse().map_err(|_| EngineError::damaged("an address"))?;
            let (account, grant) = (AccountId(row.number(0)?), Grant { role, reach });
            let (given_by, given_at) = (row.text(4)?.to_owned(), UtcMillis(row.int(5)?));
            Ok(Some(GrantEntry { account, address, grant, given_by, given_at }))
        };
        rows.iter().filter_map(|row| read(row).transpose()).collect()
    }

    pub async fn domain(&self, name: &Domain) -> Result<Option<DomainEntry>, EngineError> {
        let listing = Listing { domain: Some(name.clone()), ..Listing::default() };
        Ok(self.domains(listing).await?.into_iter().next())
    }

    pub async fn domain_by_id(&self, id: DomainId) -> Result<Option<DomainEntry>, EngineError> {
        let listing = Listing { within: Some(vec![access::Reach::Domain(id)]), ..Listing::default() };
        Ok(self.domains(listing).await?.into_iter().next())
    }

    pub async fn tenant(&self, name: &str) -> Result<Option<Tenant>, EngineError> {
        Ok(self.tenants().await?.into_iter().find(|tenant| tenant.name.eq_ignore_ascii_case(name)))
    }

    pub async fn tenant_by_id(&self, id: TenantId) -> Result<Option<Tenant>, EngineError> {
        Ok(self.tenants().await?.into_iter().find(|tenant| tenant.id == id))
    }

    /// Where a role is held, by name: for the whole system if nothing is named.
    pub async fn reach(
        &self,
        tenant: Option<&str>,
        domain: Option<&Domain>,
    ) -> Result<(Reach, Position), RegistryError> {
        match (tenant, domain) {
            (None, None) => Ok((Reach::System, Position::SYSTEM)),
            (Some(name), None) => {
                let tenant = self.tenant(name).await?.ok_or_else(|| missing("the tenant", name))?;
                Ok((Reach::Tenant(tenant.id), tenant.position))
            }
            (None, Some(name)) => {
                let domain = self.domain(name).await?.ok_or_else(|| missing("the domain", name))?;
                Ok((Reach::Domain(domain.id), domain.position))
            }
            (Some(_), Some(_)) => Err(refused("a role is held for a tenant or a domain, not for both")),
        }
    }

    /// Where a reach is; `None` if it is gone.
    pub async fn reach_position(&self, reach: Reach) -> Result<Option<Position>, EngineError> {
        Ok(match reach {
            Reach::System => Some(Position::SYSTEM),
            Reach::Tenant(id) => self.tenant_by_id(id).await?.map(|tenant| tenant.position),
            Reach::Domain(id) => self.domain_by_id(id).await?.map(|domain| domain.position),
        })
    }

    /// All names of the domains that are within: their own and their further ones.
    pub async fn names_within(&self, reaches: &[Reach]) -> Result<Vec<(DomainId, Domain)>, EngineError> {
        let listing = Listing { within: Some(reaches.to_vec()), ..Listing::default() };
        let (domain, tenant) = (self.table("domain"), self.table("tenant"));
        let of = |column| within(&listing, column, (&domain, &tenant));
        let text = format!(
            "SELECT d.id, d.name FROM {domain} d WHERE {} UNION ALL SELECT a.domain, a.name FROM domain_alias a WHERE {}",
            of("d.id"),
            of("a.domain")
        );
        let read = |row: &Row| {
            let name = row.text(1)?.parse().map_err(|_| EngineError::damaged("a domain's name"))?;
            Ok((DomainId(row.number(0)?), name))
        };
        self.ask_both(&text, Vec::new()).await?.iter().map(read).collect()
    }

    /// Where an account is, by its address: for whoever asks whether somebody may do something to it.
    pub async fn position(&self, address: &Address) -> Result<Option<Position>, EngineError> {
        Ok(self.account_by_address(address).await?.map(|account| account.position))
    }

    /// Sets where an account's mail goes, too. What was there stays as it was; for what is new, or was not answered in time,
    /// gives the words that whoever reads there has to send back: until then nothing goes there. Targets of this system's
    /// domains need no asking.
    pub async fn set_forwards(
        &self,
        account: AccountId,
        targets: &[Address],
        keeps: bool,
    ) -> Result<Vec<(Address, String)>, RegistryError> {
        if targets.len() > FORWARDS_MAX {
            return Err(refused(format!("mail is forwarded to at most {FORWARDS_MAX} addresses")));
        }
        let now = self.clock.utc();
        let mut steps = Vec::new();
        let mut fresh: BTreeMap<String, &Address> = targets.iter().map(|target| (kept(target), target)).collect();
        for one in self.forwards(account).await?.0 {
            let key = kept(&one.target);
            let is_over = one.confirmed_at.is_none() && now.0 - one.asked_at.0 >= CONFIRM_WITHIN_MS;
            if !is_over && fresh.remove(&key).is_some() {
                continue;
            }
            let text = "DELETE FROM forward WHERE account = $1 AND target = $2";
            steps.push(Statement::new(text, vec![account.0.into(), key.into()]));
        }
        let mut asked = Vec::new();
        for (key, target) in fresh {
            let is_ours = self.tables.canonical(&target.domain).await?.is_some();
            let token = random_text(TOKEN_CHARS);
            let text = "INSERT INTO forward (account, target, keeps, digest, asked_at, confirmed_at)
                VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account, target) DO NOTHING";
            let confirmed = is_ours.then_some(now.0);
            let values =
                vec![account.0.into(), key.into(), keeps.into(), digest(&token).into(), now.0.into(), confirmed.into()];
            steps.push(Statement::new(text, values));
            if !is_ours {
                asked.push((target.clone(), token));
            }
        }
        let text = "UPDATE forward SET keeps = $2 WHERE account = $1";
        steps.push(Statement::new(text, vec![account.0.into(), keeps.into()]));
        let done = self.change_both(steps, None).await?;
        done.map_err(|_| refused("the forwards were changed meanwhile"))?;
        Ok(asked)
    }

    /// With whether a copy stays.
    pub async fn forwards(&self, account: AccountId) -> Result<(Vec<Forward>, bool), EngineError> {
        let text = "SELECT target, asked_at, confirmed_at, keeps FROM forward WHERE account = $1 ORDER BY target";
        let rows = self.ask_both(text, vec![account.0.into()]).await?;
        let mut keeps = true;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let target = row.text(0)?.parse().map_err(|_| EngineError::damaged("a forward's target"))?;
            keeps &= row.is(3)?;
            let confirmed_at = row.int_opt(2)?.map(UtcMillis);
            found.push(Forward { target, asked_at: UtcMillis(row.int(1)?), confirmed_at });
        }
        Ok((found, keeps))
    }

    /// Who reads at a target agrees; gives whose mail goes there from now on, and the target. `None` if nobody asked, or too
    /// long ago.
    pub async fn confirm_forward(&self, token: &str) -> Result<Option<(AccountId, Address)>, EngineError> {
        let now = self.clock.utc();
        let text = "UPDATE forward SET confirmed_at = $2 WHERE digest = $1 AND confirmed_at IS NULL AND asked_at > $3
            RETURNING account, target";
        let values = vec![digest(token).into(), now.0.into(), (now.0 - CONFIRM_WITHIN_MS).into()];
        let Ok(done) = self.change_both(vec![Statement::new(text, values).must()], None).await? else {
            return Ok(None);
        };
        let Some(row) = done.first().and_then(|done| done.rows.first()) else { return Ok(None) };
        let target = row.text(1)?.parse().map_err(|_| EngineError::damaged("a forward's target"))?;
        Ok(Some((AccountId(row.number(0)?), target)))
    }

    /// Another name for a domain: `x@name` leads where `x@domain` does.
    pub async fn add_domain_alias(&self, name: &Domain, domain: &Domain) -> Result<(), RegistryError> {
        if name.is_literal() {
            return Err(refused("an address literal is not a mail domain"));
        }
        let Some(entry) = self.domain(domain).await? else { return Err(missing("the domain", domain)) };
        if self.tables.canonical(name).await?.is_some() {
            return Err(exists("the domain", name));
        }
        let text =
            "INSERT INTO domain_alias (name, domain, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";
        let values = vec![name.as_str().into(), entry.id.0.into(), self.clock.utc().0.into()];
        let done = self.change_both(vec![Statement::new(text, values).must()], None).await?;
        done.map(drop).map_err(|_| exists("the domain", name))
    }

    pub async fn delete_domain_alias(&self, name: &Domain) -> Result<(), RegistryError> {
        let step = Statement::new("DELETE FROM domain_alias WHERE name = $1", vec![name.as_str().into()]).must();
        self.change_both(vec![step], None).await?.map(drop).map_err(|_| missing("the alias domain", name))
    }

    /// Further names of a domain.
    pub async fn domain_aliases(&self, domain: DomainId) -> Result<Vec<Domain>, EngineError> {
        let text = "SELECT name FROM domain_alias WHERE domain = $1 ORDER BY name";
        let rows = self.ask_both(text, vec![domain.0.into()]).await?;
        rows.iter().map(|row| row.text(0)?.parse().map_err(|_| EngineError::damaged("an alias domain"))).collect()
    }

    /// Likewise, by its name.
    pub(crate) async fn further_names(&self, domain: &Domain) -> Result<Vec<Domain>, EngineError> {
        let text = format!(
            "SELECT a.name FROM domain_alias a JOIN {} d ON d.id = a.domain WHERE d.name = $1 ORDER BY a.name",
            self.table("domain")
        );
        let rows = self.ask_both(&text, vec![domain.as_str().into()]).await?;
        rows.iter().map(|row| row.text(0)?.parse().map_err(|_| EngineError::damaged("an alias domain"))).collect()
    }

    /// Octets that all nodes sign with, by their use; made when they are first needed.
    pub async fn system_secret(&self, name: &str) -> Result<Vec<u8>, EngineError> {
        let mut fresh = vec![0u8; SECRET_MAX];
        getrandom::fill(&mut fresh).expect("the operating system gives random bytes");
        let find = "SELECT value FROM system_secret WHERE name = $1";
        if let Some(row) = self.ask_both(find, vec![name.into()]).await?.first() {
            return Ok(row.bytes(0)?.to_vec());
        }
        let text = "INSERT INTO system_secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        // Whoever comes second finds the first one's.
        let _ = self.place().change(vec![Statement::new(text, vec![name.into(), fresh.into()])]).await?;
        let found = self.ask_both(find, vec![name.into()]).await?;
        found.first().map_or_else(
            || Err(EngineError::damaged("a secret that was just made")),
            |row| row.bytes(0).map(<[u8]>::to_vec),
        )
    }

    /// Signed-in browsers of an account, those used last first; each by a number that names it to its owner.
    pub async fn web_sessions(&self, account: AccountId) -> Result<Vec<(String, UtcMillis, UtcMillis)>, EngineError> {
        let text = format!(
            "SELECT digest, opened_at, used_at FROM {} WHERE account = $1 ORDER BY used_at DESC",
            self.table("web_session")
        );
        let rows = self.ask_both(&text, vec![account.0.into()]).await?;
        let read = |row: &Row| Ok((name_of(row.bytes(0)?), UtcMillis(row.int(1)?), UtcMillis(row.int(2)?)));
        rows.iter().map(read).collect()
    }

    /// Signs a browser out, by the name that [`Registry::web_sessions`] gives it, or all but one; gives how many.
    pub async fn close_web_sessions(
        &self,
        account: AccountId,
        which: impl Fn(&str) -> bool,
    ) -> Result<u64, EngineError> {
        let table = self.table("web_session");
        let text = format!("SELECT digest FROM {table} WHERE account = $1");
        let mut steps = Vec::new();
        for row in self.ask_both(&text, vec![account.0.into()]).await? {
            let digest = row.bytes(0)?;
            if which(&name_of(digest)) {
                steps.push(Statement::new(
                    format!("DELETE FROM {table} WHERE digest = $1"),
                    vec![digest.to_vec().into()],
                ));
            }
        }
        let done = self.place().change(steps).await?;
        Ok(done.map_or(0, |done| done.iter().map(|one| one.count).sum()))
    }

    /// What the engine calls a table that is older than those that both name alike.
    pub(crate) fn table(&self, name: &str) -> String {
        match self.place() {
            Place::Sqlite(_) => name.to_owned(),
            Place::Postgres(_) => format!("directory_{name}"),
        }
    }
}

/// A forward's target in the table: it reads back also where the local part is quoted.
fn kept(target: &Address) -> String {
    target.to_string().to_lowercase()
}

/// Names a session without telling what opens it.
pub fn session_name(digest: &[u8; 32]) -> String {
    name_of(digest)
}

fn name_of(digest: &[u8]) -> String {
    hex(&digest[..digest.len().min(8)])
}
