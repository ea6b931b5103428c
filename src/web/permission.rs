//! Whether a viewer may: the one place where the API asks.

use access::{Position, Reach, Right};
use base::{AccountId, DomainId};
use directory::{Account, DomainEntry};
use mail::{Address, Domain};
use trail::Scope;

use crate::auth::Viewer;
use crate::error::ApiError;
use crate::server::Inner;

impl Viewer {
    pub fn may(&self, right: Right, position: Position) -> bool {
        access::may(self.account.id, self.grants(), right, position)
    }

    /// # Errors
    /// [`ApiError::NotFound`] of what the viewer may know nothing of, [`ApiError::Forbidden`] of what it may see, but not that.
    pub fn require(&self, right: Right, position: Position) -> Result<(), ApiError> {
        if self.may(right, position) {
            return Ok(());
        }
        let sees = self.grants().iter().any(|grant| grant.reach.covers(position));
        let is_own = position.account == Some(self.account.id);
        Err(if sees || is_own || position == Position::SYSTEM { ApiError::Forbidden } else { ApiError::NotFound })
    }

    /// What a list of such things holds.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] for whom it would hold nothing, ever.
    pub fn within(&self, right: Right) -> Result<Option<Vec<Reach>>, ApiError> {
        let reaches = access::reach(self.grants(), right);
        match reaches.first() {
            None => Err(ApiError::Forbidden),
            Some(Reach::System) => Ok(None),
            Some(_) => Ok(Some(reaches)),
        }
    }
}

impl Inner {
    /// Puts on record that somebody of the provider's looked at something: once in half an hour. What cannot be recorded is not
    /// shown.
    pub async fn looked(
        &self,
        viewer: &Viewer,
        what: &'static str,
        position: Position,
        object: &str,
    ) -> Result<(), ApiError> {
        let is_own = position.account == Some(viewer.account.id);
        if is_own || !viewer.grants().iter().any(|grant| grant.role.is_staff()) {
            return Ok(());
        }
        let key = (viewer.account.id, what, position);
        if self.looks.contains_key(&key) {
            return Ok(());
        }
        let (registry, by) = (&self.services.registry, viewer.account.address.to_string());
        registry.note_audit(&by, &format!("view-{what}"), object, position).await?;
        self.looks.insert(key, ());
        Ok(())
    }
}

/// All domains that a right reaches, by all their names; `None` for all that there are.
pub(crate) async fn domains(web: &Inner, reaches: &[Reach]) -> Result<Option<Vec<(DomainId, Domain)>>, ApiError> {
    if reaches.contains(&Reach::System) {
        return Ok(None);
    }
    Ok(Some(web.services.registry.names_within(reaches).await?))
}

/// What of the log a viewer sees, and whether subjects are part of it. `of`: a domain or an address, else all that is theirs.
pub(crate) async fn log_scope(web: &Inner, viewer: &Viewer, of: Option<&str>) -> Result<LogScope, ApiError> {
    let own = || LogScope { scope: Scope::Account(viewer.account.id), has_subjects: true, is_exact: false };
    let Some(of) = of.filter(|of| !of.is_empty()) else {
        let reaches = access::reach(viewer.grants(), Right::ViewLog);
        if reaches.is_empty() {
            if viewer.may(Right::SearchLog, Position::SYSTEM) {
                return Ok(LogScope { scope: Scope::System, has_subjects: false, is_exact: true });
            }
            return Ok(own());
        }
        let has_subjects = !access::reach(viewer.grants(), Right::ViewSubjects).is_empty();
        let scope = match domains(web, &reaches).await? {
            None => Scope::System,
            Some(domains) => Scope::Domains(domains.into_iter().map(|(_, name)| name).collect()),
        };
        return Ok(LogScope { scope, has_subjects, is_exact: false });
    };
    if of == "own" {
        return Ok(own());
    }
    let (position, scope) = match of.contains('@') {
        true => {
            let account = account(web, of).await?;
            (account.position, Scope::Account(account.id))
        }
        false => {
            let domain = domain(web, &of.parse().map_err(|_| ApiError::NotFound)?).await?;
            let names = web.services.registry.names_within(&[Reach::Domain(domain.id)]).await?;
            (domain.position, Scope::Domains(names.into_iter().map(|(_, name)| name).collect()))
        }
    };
    let is_exact = !viewer.may(Right::ViewLog, position) && viewer.may(Right::SearchLog, position);
    if !is_exact {
        viewer.require(Right::ViewLog, position)?;
    }
    web.looked(viewer, "log", position, of).await?;
    Ok(LogScope { scope, has_subjects: viewer.may(Right::ViewSubjects, position), is_exact })
}

/// See [`log_scope`].
pub(crate) struct LogScope {
    pub scope: Scope,
    pub has_subjects: bool,
    /// Only of an address that the query names in full.
    pub is_exact: bool,
}

pub(crate) async fn account(web: &Inner, address: &str) -> Result<Account, ApiError> {
    account_at(web, &address.parse().map_err(|_| ApiError::NotFound)?).await
}

pub(crate) async fn account_at(web: &Inner, address: &Address) -> Result<Account, ApiError> {
    web.services.registry.account_by_address(address).await?.ok_or(ApiError::NotFound)
}

pub(crate) async fn account_by_id(web: &Inner, id: AccountId) -> Result<Account, ApiError> {
    web.services.registry.account_by_id(id).await?.ok_or(ApiError::NotFound)
}

pub(crate) async fn domain(web: &Inner, name: &Domain) -> Result<DomainEntry, ApiError> {
    web.services.registry.domain(name).await?.ok_or(ApiError::NotFound)
}

pub(crate) async fn domain_position(web: &Inner, name: &str) -> Result<Position, ApiError> {
    Ok(domain(web, &name.parse().map_err(|_| ApiError::NotFound)?).await?.position)
}

pub(crate) async fn tenant_position(web: &Inner, name: &str) -> Result<Position, ApiError> {
    let found = web.services.registry.tenant(name).await?;
    Ok(found.ok_or(ApiError::NotFound)?.position)
}
