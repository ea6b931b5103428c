//! Tables of the embedded directory. Steps are appended, never edited.

pub(crate) const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE tenant (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    kind TEXT NOT NULL,
    parent INTEGER REFERENCES tenant (id),
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE domain (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    tenant INTEGER REFERENCES tenant (id),
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    domain INTEGER NOT NULL REFERENCES domain (id),
    folded TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL,
    name TEXT NOT NULL,
    access TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    quota_bytes INTEGER,
    password TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX account_domain ON account (domain);
-- `folded` is local@domain, or @domain for a catch-all.
CREATE TABLE alias (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    domain INTEGER NOT NULL REFERENCES domain (id),
    folded TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX alias_domain ON alias (domain);
CREATE TABLE alias_target (
    alias INTEGER NOT NULL REFERENCES alias (id) ON DELETE CASCADE,
    folded TEXT NOT NULL,
    PRIMARY KEY (alias, folded)
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_target_folded ON alias_target (folded);
",
    // Quota in messages, and quota of domains and tenants.
    "
ALTER TABLE account ADD COLUMN quota_messages INTEGER;
ALTER TABLE domain ADD COLUMN quota_bytes INTEGER;
ALTER TABLE domain ADD COLUMN quota_messages INTEGER;
ALTER TABLE tenant ADD COLUMN quota_bytes INTEGER;
ALTER TABLE tenant ADD COLUMN quota_messages INTEGER;
",
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    LEGACY,
    include_str!("lock-sqlite.sql"),
    include_str!("key-sqlite.sql"),
    include_str!("person-sqlite.sql"),
    include_str!("relayed-sqlite.sql"),
];

/// Legacy servers.
const LEGACY: &str = include_str!("legacy-sqlite.sql");
