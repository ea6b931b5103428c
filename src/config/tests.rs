use std::path::Path;

use crate::load::default_of;
use crate::option::OPTIONS;
use crate::{Config, Service, reference};

const GOOD: &str =
    "[node]\nname = \"mx1.example.test\"\n[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:25\"\n";

const POSTGRES: &str = "[node]\nname = \"x\"\n[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:25\"\n\
     [storage]\nengine = \"postgresql\"\npostgresql = \"host=a,b password=hush\"\n";

/// The complaints about `text`, one line each without the file name.
fn complaints(text: &str) -> String {
    let error = Config::parse(text, Path::new("x.toml")).expect_err(text).to_string();
    error.replace("x.toml:", "")
}

#[test]
fn a_small_file_gets_every_default() {
    let mut config = Config::parse(GOOD, Path::new("/etc/ortler/ortler.toml")).unwrap();
    assert_eq!(config.file.take().unwrap(), Path::new("/etc/ortler/ortler.toml"));
    assert_eq!((config.listeners[0].service, config.data.to_str().unwrap()), (Service::Smtp, "/var/lib/ortler"));
    assert_eq!((config.message_size_max.0, config.recipients_max, config.roles.len()), (50 << 20, 1000, 3));
    assert_eq!(config, Config::with_defaults("mx1.example.test", "/var/lib/ortler".into(), config.listeners.clone()));
    let relative =
        Config::parse(&format!("{GOOD}[filter]\npolicy = \"p.toml\"\n"), Path::new("/etc/ortler/o.toml")).unwrap();
    assert_eq!(relative.policy.unwrap().to_str().unwrap(), "/etc/ortler/p.toml");
}

#[test]
fn a_server_that_nodes_share() {
    let text = format!("{POSTGRES}postgresql_password_file = \"pw\"\n");
    let config = Config::parse(&text, Path::new("/etc/ortler/o.toml")).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    let server = config.postgres.unwrap();
    assert_eq!(server.url.reveal(), "host=a,b password=hush");
    assert_eq!((server.tls, server.connections, server.trail_url), (crate::PostgresTls::Require, 16, None));
    assert_eq!(server.password_file.unwrap().to_str().unwrap(), "/etc/ortler/pw");
    let apart = Config::parse(&format!("{text}[trail]\npostgresql = \"host=c password=hush\"\n"), Path::new("x.toml"));
    assert_eq!(apart.unwrap().postgres.unwrap().trail_url.unwrap().reveal(), "host=c password=hush");
    // Named but not chosen.
    let text = text.replace("engine = \"postgresql\"", "engine = \"embedded\"");
    assert_eq!(Config::parse(&text, Path::new("x.toml")).unwrap().postgres, None);
}

#[test]
fn every_complaint_names_its_line_and_the_way_out() {
    for (text, expected) in [
        ("[node]\nnmae = \"x\"\n", "2: unknown option `node.nmae`; did you mean `node.name`?"),
        ("[noed]\n", "1: unknown section [noed]; did you mean `node`?"),
        ("[zzzzzz]\n", "1: unknown section [zzzzzz]; `ortler config reference` lists all"),
        ("[smtp]\nrecipients_max = 5\n", "2: `smtp.recipients_max` must be a whole number from 100 to 100000"),
        ("[smtp]\nmessage_size_max = \"1 KB\"\n", "2: `smtp.message_size_max` must lie between 64 KB and 1 GB"),
        ("[smtp]\nmessage_size_max = 5\n", "2: `smtp.message_size_max` must be a text in quotes, not integer"),
        ("[network]\ntrusted_proxies = [\"10.0.0.0/40\"]\n", "2: `network.trusted_proxies` has `10.0.0.0/40`"),
        ("[log]\nlevel = \"loud\"\n", "2: `log.level` must be one of error, warn, info, debug, trace"),
        ("[[listener]]\nprotocol = \"smpt\"\n", "2: `protocol` must be one of smtp"),
        (
            "[[listener]]\naddress = \"localhost:25\"\nprotocol = \"smtp\"",
            "2: `address` must be an IP address with a port",
        ),
        ("[[listener]]\nport = 1\n", "2: unknown option `listener.port`"),
        ("node = 3\n", "1: `node` is a section"),
        ("[filter]\nclamd_down = \"pass\"\n", "2: `filter.clamd_down` is gone: set `scanner-unavailable`"),
        ("[node\n", "1: "),
        ("", "`node.name` is missing"),
        ("[node]\nname = \"x\"\n", "there is no [[listener]]"),
        (&format!("{GOOD}[tls]\nkey = \"k\"\n"), "`tls.certificate` and `tls.key` go together"),
        (&format!("{GOOD}[storage]\nengine = \"postgresql\"\n"), "`storage.postgresql` is missing"),
        (&format!("{POSTGRES}postgresql_tls = \"verify-full\"\n"), "`storage.postgresql_ca` is missing"),
        (
            &format!("{POSTGRES}object_store = [\"https://s3.test\"]\nobject_store_bucket = \"mail\"\n"),
            "`storage.object_store_access_key`, `storage.object_store_secret_file` is missing",
        ),
        (&format!("{POSTGRES}postgresql_connections = 1\n"), "must be a whole number from 2 to 1000"),
        (
            &format!("{GOOD}[[listener]]\nprotocol = \"lmtp\"\naddress = \"127.0.0.1:25\"\n"),
            "127.0.0.1:25 is listened on twice",
        ),
    ] {
        assert!(complaints(text).contains(expected), "{text}\n-> {}", complaints(text));
    }
    assert_eq!(complaints("[a]\n[b]\n").lines().count(), 2);
}

#[test]
fn every_default_passes_its_own_check_and_the_reference_loads() {
    for option in OPTIONS {
        assert_eq!(option.default.is_some(), default_of(option).is_some(), "{}", option.path);
        assert!(reference().contains(option.doc), "{}", option.path);
        let key = option.path.split_once('.').unwrap().1;
        assert!(reference().contains(&format!("\n# {key} = ")) || option.required, "{}", option.path);
    }
    let filled = reference().replace("name = \"\"", "name = \"x\"")
        + "[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:25\"\n";
    let uncommented: String = filled
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(option)
                if option.contains(" = ") && !option.contains("protocol =") && !option.contains("address =") =>
            {
                format!("{option}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(Config::parse(&uncommented, Path::new("x.toml")).is_ok(), "{}", complaints(&uncommented));
}

/// Bytes changed at random (with a fixed seed) must give a configuration or complaints, never a panic.
#[test]
fn damaged_files_never_panic() {
    let base = reference() + GOOD;
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % (below as u64)).unwrap_or(0)
    };
    for _ in 0..500 {
        let mut bytes = base.clone().into_bytes();
        for _ in 0..=random(5) {
            if bytes.len() < 2 {
                break;
            }
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = u8::try_from(random(128)).unwrap_or(0),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let _ = Config::parse(&String::from_utf8_lossy(&bytes), Path::new("x.toml"));
    }
}
