-- Domains whose mail goes on to a server of their owner's. A table that both engines name alike.
CREATE TABLE domain_relay (
    domain              bigint PRIMARY KEY REFERENCES directory_domain (id) ON DELETE CASCADE,
    hosts               text NOT NULL,
    lmtp                bigint NOT NULL,
    trust               text NOT NULL,
    verify              text NOT NULL
);
-- By which whoever reads an account's mail signs in: once, and for a while.
CREATE TABLE sign_in_link (
    account             bigint PRIMARY KEY REFERENCES directory_account (id) ON DELETE CASCADE,
    digest              bytea NOT NULL,
    made_at             bigint NOT NULL
);
CREATE INDEX sign_in_link_digest ON sign_in_link (digest);
