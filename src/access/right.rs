//! What each role may do.

use base::AccountId;

use crate::grant::{Grant, Position, Reach};

/// A set of rights that is held somewhere. Everybody is a user of the own account besides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Everything on this system, but for what people write.
    IspAdmin,
    /// Runs it from day to day.
    IspOperator,
    /// Sells to customers of its own.
    Reseller,
    CustomerAdmin,
    DomainAdmin,
    /// Answers "where is my mail?".
    ServiceCentre,
    /// The same, and helps.
    ServiceCentreSenior,
    /// Looks at everything and changes nothing.
    Auditor,
}

impl Role {
    pub const ALL: [Self; 8] = [
        Self::IspAdmin,
        Self::IspOperator,
        Self::Reseller,
        Self::CustomerAdmin,
        Self::DomainAdmin,
        Self::ServiceCentre,
        Self::ServiceCentreSenior,
        Self::Auditor,
    ];

    /// Stable name for the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IspAdmin => "isp-admin",
            Self::IspOperator => "isp-operator",
            Self::Reseller => "reseller",
            Self::CustomerAdmin => "customer-admin",
            Self::DomainAdmin => "domain-admin",
            Self::ServiceCentre => "service-centre",
            Self::ServiceCentreSenior => "service-centre-senior",
            Self::Auditor => "auditor",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// True for those who work for the provider: what they look at is put on record, and they sign in with a second factor.
    pub const fn is_staff(self) -> bool {
        match self {
            Self::IspAdmin | Self::IspOperator | Self::ServiceCentre | Self::ServiceCentreSenior | Self::Auditor => {
                true
            }
            Self::Reseller | Self::CustomerAdmin | Self::DomainAdmin => false,
        }
    }

    /// True if it can be held at such a place.
    pub const fn fits(self, reach: Reach) -> bool {
        match (self, reach) {
            (Self::Reseller | Self::CustomerAdmin, Reach::Tenant(_)) | (Self::DomainAdmin, Reach::Domain(_)) => true,
            (Self::Reseller | Self::CustomerAdmin, Reach::System | Reach::Domain(_)) => false,
            (Self::DomainAdmin, Reach::System | Reach::Tenant(_)) => false,
            (
                Self::IspAdmin | Self::IspOperator | Self::ServiceCentre | Self::ServiceCentreSenior | Self::Auditor,
                reach,
            ) => matches!(reach, Reach::System),
        }
    }

    /// The roles that somebody with this one may give others where it is held.
    const fn gives(self) -> &'static [Self] {
        match self {
            Self::IspAdmin => &Self::ALL,
            Self::Reseller => &[Self::CustomerAdmin, Self::DomainAdmin],
            Self::CustomerAdmin => &[Self::CustomerAdmin, Self::DomainAdmin],
            Self::IspOperator => &[Self::CustomerAdmin, Self::DomainAdmin],
            Self::DomainAdmin | Self::ServiceCentre | Self::ServiceCentreSenior | Self::Auditor => &[],
        }
    }
}

/// One thing that may be allowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Right {
    ViewNodes,
    ChangeNodes,
    ViewSystemPolicy,
    ChangeSystemPolicy,
    ViewTenants,
    ChangeTenants,
    /// With keys, DNS and reports.
    ViewDomains,
    ChangeDomains,
    /// With aliases and lists.
    ViewAccounts,
    ChangeAccounts,
    ResetPassword,
    ViewPolicy,
    ChangePolicy,
    /// Who wrote to whom, and what became of it.
    ViewLog,
    /// The same, of an address that is named in full.
    SearchLog,
    ViewSubjects,
    /// What is held, without its text.
    ViewQuarantine,
    /// The text of what is held.
    ViewContent,
    ReleaseSpam,
    /// With files of a kind that is not wanted.
    ReleaseFiles,
    /// With viruses, or from false senders.
    ReleaseHarm,
    ViewQueue,
    RetryQueue,
    ChangeQueue,
    ViewAudit,
}

impl Right {
    /// The roles that have it where they are held.
    pub const fn held_by(self) -> &'static [Role] {
        use Role as R;
        match self {
            Self::ViewNodes => &[R::IspAdmin, R::IspOperator, R::ServiceCentreSenior, R::Auditor],
            Self::ChangeNodes => &[R::IspAdmin, R::IspOperator],
            Self::ViewSystemPolicy => {
                &[R::IspAdmin, R::IspOperator, R::ServiceCentre, R::ServiceCentreSenior, R::Auditor]
            }
            Self::ChangeSystemPolicy | Self::ReleaseHarm => &[R::IspAdmin],
            Self::ViewTenants => &[
                R::IspAdmin,
                R::IspOperator,
                R::Reseller,
                R::CustomerAdmin,
                R::ServiceCentre,
                R::ServiceCentreSenior,
                R::Auditor,
            ],
            Self::ChangeTenants => &[R::IspAdmin, R::Reseller],
            Self::ViewDomains | Self::ViewAccounts | Self::ViewPolicy | Self::ViewQuarantine | Self::ViewQueue => {
                &Role::ALL
            }
            Self::ChangeDomains | Self::ChangeAccounts | Self::ReleaseFiles => {
                &[R::IspAdmin, R::IspOperator, R::Reseller, R::CustomerAdmin, R::DomainAdmin, R::ServiceCentreSenior]
            }
            Self::ResetPassword | Self::ReleaseSpam | Self::RetryQueue => &[
                R::IspAdmin,
                R::IspOperator,
                R::Reseller,
                R::CustomerAdmin,
                R::DomainAdmin,
                R::ServiceCentre,
                R::ServiceCentreSenior,
            ],
            Self::ChangePolicy => &[R::IspAdmin, R::Reseller, R::CustomerAdmin, R::DomainAdmin, R::ServiceCentreSenior],
            Self::ViewLog => &[
                R::IspAdmin,
                R::IspOperator,
                R::Reseller,
                R::CustomerAdmin,
                R::DomainAdmin,
                R::ServiceCentreSenior,
                R::Auditor,
            ],
            Self::SearchLog => &[R::ServiceCentre],
            Self::ViewSubjects => &[R::IspAdmin, R::Reseller, R::CustomerAdmin, R::DomainAdmin],
            Self::ViewContent => &[R::CustomerAdmin, R::DomainAdmin],
            Self::ChangeQueue => &[R::IspAdmin, R::IspOperator, R::Reseller, R::CustomerAdmin, R::DomainAdmin],
            Self::ViewAudit => &[R::IspAdmin, R::Reseller, R::CustomerAdmin, R::DomainAdmin, R::Auditor],
        }
    }
}

/// What everybody may do with what is their own.
const OWN: &[Right] = &[
    Right::ViewPolicy,
    Right::ChangePolicy,
    Right::ViewLog,
    Right::ViewSubjects,
    Right::ViewQuarantine,
    Right::ViewContent,
    Right::ReleaseSpam,
    Right::ViewAudit,
];

/// The check: whether `who`, with these grants, has a right over what is at `position`.
pub fn may(who: AccountId, grants: &[Grant], right: Right, position: Position) -> bool {
    let is_own = position.account == Some(who) && OWN.contains(&right);
    is_own || grants.iter().any(|grant| right.held_by().contains(&grant.role) && grant.reach.covers(position))
}

/// How far a right reaches, for lists: each place once, the widest first; `[System]` if it is everywhere.
pub fn reach(grants: &[Grant], right: Right) -> Vec<Reach> {
    let mut all: Vec<Reach> =
        grants.iter().filter(|grant| right.held_by().contains(&grant.role)).map(|grant| grant.reach).collect();
    all.sort_unstable();
    all.dedup();
    if all.first() == Some(&Reach::System) {
        all.truncate(1);
    }
    all
}

/// The roles that somebody may give anywhere.
pub fn gives(grants: &[Grant]) -> Vec<Role> {
    Role::ALL.into_iter().filter(|role| grants.iter().any(|own| own.role.gives().contains(role))).collect()
}

/// Whether `grants` let somebody give (or take away) a role at a place, which is at `position`.
pub fn may_grant(grants: &[Grant], given: Grant, position: Position) -> bool {
    given.role.fits(given.reach)
        && grants.iter().any(|own| own.role.gives().contains(&given.role) && own.reach.covers(position))
}

#[cfg(test)]
mod tests {
    use base::{DomainId, TenantId};

    use super::*;

    const ME: AccountId = AccountId(1);
    const RESELLER: TenantId = TenantId(10);
    const CUSTOMER: TenantId = TenantId(11);
    const DOMAIN: DomainId = DomainId(20);

    fn of_account(account: u64) -> Position {
        Position {
            reseller: Some(RESELLER),
            customer: Some(CUSTOMER),
            domain: Some(DOMAIN),
            account: Some(AccountId(account)),
        }
    }

    fn grants(role: Role) -> [Grant; 1] {
        let reach = match role {
            Role::Reseller => Reach::Tenant(RESELLER),
            Role::CustomerAdmin => Reach::Tenant(CUSTOMER),
            Role::DomainAdmin => Reach::Domain(DOMAIN),
            _ => Reach::System,
        };
        assert!(role.fits(reach));
        [Grant { role, reach }]
    }

    use Right as R;

    /// The table of roles: a mark for each of A(dmin) O(perator) R(eseller) C(ustomer) D(omain) 1 2 (service centre) a(uditor) u(ser)
    /// who has a right over somebody's account; a user over the own.
    const TABLE: [(R, &str); 25] = [
        (R::ViewNodes, "AO2a"),
        (R::ChangeNodes, "AO"),
        (R::ViewSystemPolicy, "AO12a"),
        (R::ChangeSystemPolicy, "A"),
        (R::ViewTenants, "AORC12a"),
        (R::ChangeTenants, "AR"),
        (R::ViewDomains, "AORCD12a"),
        (R::ChangeDomains, "AORCD2"),
        (R::ViewAccounts, "AORCD12a"),
        (R::ChangeAccounts, "AORCD2"),
        (R::ResetPassword, "AORCD12"),
        (R::ViewPolicy, "AORCD12au"),
        (R::ChangePolicy, "ARCD2u"),
        (R::ViewLog, "AORCD2au"),
        (R::SearchLog, "1"),
        (R::ViewSubjects, "ARCDu"),
        (R::ViewQuarantine, "AORCD12au"),
        (R::ViewContent, "CDu"),
        (R::ReleaseSpam, "AORCD12u"),
        (R::ReleaseFiles, "AORCD2"),
        (R::ReleaseHarm, "A"),
        (R::ViewQueue, "AORCD12a"),
        (R::RetryQueue, "AORCD12"),
        (R::ChangeQueue, "AORCD"),
        (R::ViewAudit, "ARCDau"),
    ];

    #[test]
    fn the_table_of_roles() {
        for (right, who) in TABLE {
            let mark = |(role, mark): (Role, char)| may(ME, &grants(role), right, of_account(2)).then_some(mark);
            let mut found: String = Role::ALL.into_iter().zip("AORCD12a".chars()).filter_map(mark).collect();
            if may(ME, &[], right, of_account(1)) {
                found.push('u');
            }
            assert_eq!(found, who, "{right:?}");
            assert!(!may(ME, &[], right, of_account(2)), "{right:?} of another's");
        }
    }

    #[test]
    fn no_role_reaches_beyond_its_place() {
        let elsewhere = Position {
            reseller: Some(TenantId(90)),
            customer: Some(TenantId(91)),
            domain: Some(DomainId(92)),
            account: Some(AccountId(93)),
        };
        let beside = Position { domain: Some(DomainId(21)), account: Some(AccountId(3)), ..of_account(3) };
        for role in [Role::Reseller, Role::CustomerAdmin, Role::DomainAdmin] {
            let grants = grants(role);
            for right in TABLE.into_iter().map(|(right, _)| right).filter(|right| right.held_by().contains(&role)) {
                assert!(!may(ME, &grants, right, elsewhere), "{role:?} {right:?}");
                assert!(!may(ME, &grants, right, Position::SYSTEM), "{role:?} {right:?}");
                assert_eq!(may(ME, &grants, right, beside), role != Role::DomainAdmin, "{role:?} {right:?}");
            }
        }
        assert_eq!(reach(&grants(Role::Reseller), Right::ViewLog), [Reach::Tenant(RESELLER)]);
        assert_eq!(reach(&grants(Role::Reseller), Right::ViewNodes), []);
        let both = [grants(Role::Auditor)[0], grants(Role::DomainAdmin)[0]];
        assert_eq!(reach(&both, Right::ViewLog), [Reach::System]);
    }

    #[test]
    fn roles_are_given_downwards() {
        let given = |role| grants(role)[0];
        for (who, role, allowed) in [
            (Role::IspAdmin, Role::Auditor, true),
            (Role::IspAdmin, Role::IspAdmin, true),
            (Role::IspOperator, Role::IspOperator, false),
            (Role::IspOperator, Role::DomainAdmin, true),
            (Role::Reseller, Role::CustomerAdmin, true),
            (Role::Reseller, Role::Reseller, false),
            (Role::CustomerAdmin, Role::DomainAdmin, true),
            (Role::CustomerAdmin, Role::IspAdmin, false),
            (Role::DomainAdmin, Role::DomainAdmin, false),
            (Role::ServiceCentreSenior, Role::DomainAdmin, false),
        ] {
            assert_eq!(may_grant(&grants(who), given(role), of_account(5)), allowed, "{who:?} {role:?}");
        }
        let wrong = Grant { role: Role::DomainAdmin, reach: Reach::System };
        assert!(!may_grant(&grants(Role::IspAdmin), wrong, Position::SYSTEM));
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.as_str()), Some(role));
        }
    }
}
