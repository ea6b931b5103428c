-- Keys by which mail is signed. The domain need not be one of `directory_domain`: servers' own names have keys, too.
CREATE TABLE directory_domain_key (
    domain              text COLLATE "C" NOT NULL,
    selector            text COLLATE "C" NOT NULL,
    kind                text NOT NULL,
    state               text COLLATE "C" NOT NULL,
    private_key         bytea NOT NULL,
    public_key          text NOT NULL,
    created_at          bigint NOT NULL,
    changed_at          bigint NOT NULL,
    PRIMARY KEY (domain, selector)
);
CREATE INDEX directory_domain_key_state ON directory_domain_key (state, domain, selector);
-- Whoever has the domain next does not find the keys of who had it before. A trigger, so that it also holds for what nodes of
-- the release before this one change.
CREATE FUNCTION directory_forget_domain_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM directory_domain_key WHERE domain = OLD.name;
    RETURN NULL;
END
$$;
CREATE TRIGGER directory_domain_key_gone AFTER DELETE ON directory_domain FOR EACH ROW
    EXECUTE FUNCTION directory_forget_domain_keys();
