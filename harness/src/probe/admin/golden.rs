//! The parsers against what each Envoy of the matrix really answered: see `record_the_answers_of_an_envoy`.

use camino::Utf8PathBuf;

use super::{certs, config_dump, contexts, server, stats};

const VERSIONS: [&str; 5] = ["1.36.4", "1.37.0", "1.38.3", "1.39.3", "1.40.0"];

fn fixture(version: &str, name: &str) -> Vec<u8> {
    let path = Utf8PathBuf::from(format!("{}/../fixtures/envoy-{version}/{name}", env!("CARGO_MANIFEST_DIR")));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_answers_of_every_envoy_are_read() {
    for version in VERSIONS {
        let facts = serde_json::json!({
            "certs": certs::parse(&fixture(version, "certs.json")).unwrap(),
            "config_dump": config_dump::parse(&fixture(version, "config_dump.json"), "active").unwrap(),
            "config_dump_spiffe": config_dump::parse(&fixture(version, "config_dump_spiffe.json"), "active").unwrap(),
            "listeners": server::parse_listeners(&fixture(version, "listeners.json")).unwrap(),
            "server_info": server::parse_info(&fixture(version, "server_info.json")).unwrap(),
            "stats_used": stats::parse(&fixture(version, "stats_used.txt")).unwrap(),
        });
        insta::assert_json_snapshot!(format!("envoy-{version}"), facts);
    }
}

#[test]
fn leaves_in_the_dump_and_in_certs_are_the_same() {
    for version in VERSIONS {
        let certs = certs::parse(&fixture(version, "certs.json")).unwrap();
        let dump = config_dump::parse(&fixture(version, "config_dump.json"), "active").unwrap();
        let leaf = &dump.secrets.iter().find(|s| s.name.as_str() == "default").unwrap().chain[0];
        let loaded = &certs.leaves[0];
        assert_eq!(
            (&leaf.serial, &leaf.uris, leaf.not_before, leaf.not_after),
            (&loaded.serial, &loaded.uris, loaded.not_before, loaded.not_after),
            "{version}"
        );
    }
}

#[test]
fn contexts_that_no_subscription_feeds_are_found_with_their_certificates() {
    for version in VERSIONS {
        let contexts = contexts::parse(&fixture(version, "config_dump_static.json")).unwrap().fixed;
        let mut told: Vec<_> = contexts.iter().map(|c| (c.place.as_str(), c.from.as_str(), c.chain.len())).collect();
        told.sort_unstable();
        let expected = [
            ("cluster outbound", "static secret own", 1),
            ("listener files", "file /etc/certs/file.crt", 0),
            ("listener inbound", "static secret own", 1),
            ("listener inline", "inline", 1),
        ];
        assert_eq!(told, expected, "{version}");
        // They are those that /certs lists.
        let loaded = certs::parse(&fixture(version, "certs_static.json")).unwrap();
        for leaf in contexts.iter().filter_map(|c| c.chain.first()) {
            assert!(loaded.leaves.iter().any(|l| l.serial == leaf.serial && l.uris == leaf.uris), "{version}");
        }
    }
}

#[test]
fn statistics_say_the_same_as_text_and_as_json() {
    for version in VERSIONS {
        let text = stats::parse(&fixture(version, "stats.txt")).unwrap();
        assert!(text.values.len() > 40, "{version}");
        assert_eq!(text, stats::parse(&fixture(version, "stats.json")).unwrap(), "{version}");
    }
}

#[test]
fn fixtures_hold_no_private_key() {
    for version in VERSIONS {
        let text = String::from_utf8(fixture(version, "config_dump_static.json")).unwrap();
        assert!(!text.contains("PRIVATE KEY"), "{version}");
        for name in ["config_dump.json", "config_dump_spiffe.json"] {
            let dump: serde_json::Value = serde_json::from_slice(&fixture(version, name)).unwrap();
            for config in dump["configs"].as_array().unwrap() {
                let key = &config["secret"]["tls_certificate"]["private_key"]["inline_bytes"];
                // "[redacted]"
                assert!(key.is_null() || key == "W3JlZGFjdGVkXQ==", "{version}/{name}");
            }
        }
    }
}
