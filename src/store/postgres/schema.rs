//! Versions of the schema.

use engine::postgres::Migration;

pub(crate) const COMPONENT: &str = "mail";

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { text: include_str!("schema-1.sql"), oldest: 1 },
    Migration { text: include_str!("schema-2.sql"), oldest: 1 },
    Migration { text: include_str!("schema-3.sql"), oldest: 1 },
    Migration { text: include_str!("schema-4.sql"), oldest: 1 },
    Migration { text: include_str!("schema-5.sql"), oldest: 1 },
    Migration { text: include_str!("schema-6.sql"), oldest: 1 },
    Migration { text: include_str!("schema-7.sql"), oldest: 1 },
];
