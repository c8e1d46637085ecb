//! Real keys, in every shape in which somebody quotes them, get past neither a text nor a log.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use rotacheck_judge::timeline::{LogFilter, holds_private_key, said, without_private_keys};
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::pkcs8::EncodePrivateKey as _;

/// PEM and DER of keys of each kind.
static KEYS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let made = |algorithm| {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        (key.serialize_pem(), key.serialize_der())
    };
    let mut keys: Vec<_> =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519].map(made).into();
    // RFC 5915 is what an EC key of PKCS #8 has inside.
    let sec1 = keys[0].1[26..].to_vec();
    keys.push((pem::encode(&pem::Pem::new("EC PRIVATE KEY", sec1.clone())), sec1));
    let rsa = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let pkcs1 = rsa.to_pkcs1_der().unwrap().as_bytes().to_vec();
    keys.push((pem::encode(&pem::Pem::new("RSA PRIVATE KEY", pkcs1.clone())), pkcs1));
    let pkcs8 = rsa.to_pkcs8_der().unwrap().as_bytes().to_vec();
    keys.push((pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.clone())), pkcs8));
    keys
});

/// As protobuf's text format has bytes, `all`: also those that could be printed.
fn octal(bytes: &[u8], all: bool) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'\n' if !all => text.push_str("\\n"),
            b'"' | b'\\' | b'\'' if !all => text.extend(['\\', char::from(*byte)]),
            0x20..=0x7e if !all => text.push(char::from(*byte)),
            _ => write!(text, "\\{byte:03o}").unwrap(),
        }
        text
    })
}

/// Each shape in which a text may have a key.
fn shapes((pem, der): &(String, Vec<u8>)) -> Vec<String> {
    let shell = [&b"\n\x07default\x12\xf4\x01\x0a"[..], der, b"\xff"].concat();
    let secret = [b"\n\x07default\x12\xf4\x01", pem.as_bytes(), b"\xff"].concat();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("\n");
    let hexadecimal: String = hex::encode(der);
    let hexes = der.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    vec![
        pem.clone(),
        pem.replace('\n', "\r\n"),
        pem.replace('\n', "\\n"),
        pem.replace('\n', "\\\\n"),
        pem.replace('\n', "%0A").replace(' ', "%20"),
        serde_json::json!({ "a": serde_json::json!({ "b": pem }).to_string() }).to_string(),
        format!("value: \"{}\"", octal(&secret, false)),
        format!("value: \"{}\"", octal(&secret, true)),
        format!("value: \"{}\"", octal(&shell, false)),
        format!("value: \"{}\"", octal(octal(&shell, false).as_bytes(), false)),
        format!("private_key {{\n  inline_bytes: \"{}\"\n}}", octal(der, false)),
        format!("{:?}", pem),
        body.clone(),
        body.replace('\n', "\\n"),
        STANDARD.encode(pem),
        STANDARD.encode(der),
        URL_SAFE_NO_PAD.encode(format!("xy{pem}")),
        STANDARD.encode(STANDARD.encode(&shell)),
        hexadecimal,
        hexes,
    ]
}

/// Pieces by which a key would be known again, whatever is around them.
fn remains(text: &str, shape: &str) -> bool {
    let bytes = shape.as_bytes();
    let pieces = bytes.windows(24).skip(bytes.len() / 4).step_by(8);
    pieces
        .filter(|piece| !piece.windows(11).any(|w| w == b"PRIVATE KEY"))
        .any(|piece| std::str::from_utf8(piece).is_ok_and(|piece| piece.trim().len() > 20 && text.contains(piece)))
}

fn logged(log: &[u8], size: usize) -> String {
    let (mut filter, mut kept) = (LogFilter::default(), Vec::new());
    log.chunks(size).for_each(|piece| filter.hear(piece, &mut kept));
    filter.finish(&mut kept);
    String::from_utf8(kept).unwrap()
}

#[test]
fn every_shape_of_every_key_is_taken_out() {
    for (k, key) in KEYS.iter().enumerate() {
        for (s, shape) in shapes(key).iter().enumerate() {
            for text in [format!("it says: {shape}, and more"), format!("{shape}\n"), shape.clone()] {
                let short = without_private_keys(&text);
                assert!(!remains(&short, shape) && !holds_private_key(short.as_bytes()), "{k} {s}: {short}");
                assert!(!text.starts_with("it") || short.starts_with("it says:"), "{k} {s}: {short}");
                let log = logged(text.as_bytes(), 13);
                assert!(!remains(&log, shape) && !holds_private_key(log.as_bytes()), "{k} {s}: {log}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_key_that_was_cut_off_is_taken_out_as_far_as_it_goes(
        k in 0..6_usize, s in 0..20_usize, part in 0.35..1.0_f64, before in "[a-zA-Z0-9 :\"\\\\]{0,30}", size in 1..200_usize,
    ) {
        let shape = &shapes(&KEYS[k])[s];
        let cut = (shape.len() as f64 * part) as usize;
        let text = format!("{before} {}", &shape[..cut]);
        prop_assert!(!remains(&without_private_keys(&text), shape), "{text}");
        prop_assert!(!remains(&said(&text), shape), "{text}");
        prop_assert!(!remains(&logged(text.as_bytes(), size), shape), "{text}");
    }
}

#[test]
fn certificates_stay() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap().self_signed(&key).unwrap();
    let (pem, der) = (certificate.pem(), certificate.der().to_vec());
    for text in [
        pem.clone(),
        pem.replace('\n', "\\n"),
        STANDARD.encode(&pem),
        STANDARD.encode(&der),
        hex::encode(&der),
        octal(&der, false),
        format!("{pem}{pem}"),
    ] {
        assert_eq!(without_private_keys(&text), text);
        assert_eq!(logged(text.as_bytes(), 99), text);
    }
}
