//! What a run leaves on disk is private, and holds no private key in whatever form.
#![allow(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use place::Place;

/// Everything below, directories too.
fn below(directory: &Utf8Path) -> Vec<Utf8PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut n = 0;
    while n < found.len() {
        if fs::symlink_metadata(&found[n]).unwrap().is_dir() {
            let entries: Vec<_> = found[n].read_dir_utf8().unwrap().map(|e| e.unwrap().into_path()).collect();
            found.extend(entries);
        }
        n += 1;
    }
    found
}

/// Where below there is a private key, and in which form.
fn private_keys(directory: &Utf8Path) -> Vec<String> {
    let files = below(directory).into_iter().filter(|path| path.is_file());
    files
        .flat_map(|path| keys_in(&fs::read(&path).unwrap(), 4).into_iter().map(move |f| format!("{path}: {f}")))
        .collect()
}

/// In the bytes as they are, in the strings of JSON in them, in base64, hexadecimal and C's escapes in them, and so on `depth` times.
fn keys_in(bytes: &[u8], depth: usize) -> Vec<&'static str> {
    let mut found: Vec<_> = STRUCTURES.iter().filter(|(_, is_there)| is_there(bytes)).map(|(name, _)| *name).collect();
    if depth > 0 {
        for inner in strings(bytes).into_iter().chain(decoded(bytes)).chain(unescaped(bytes)) {
            found.extend(keys_in(&inner, depth - 1));
        }
    }
    found
}

type Structure = (&'static str, fn(&[u8]) -> bool);

const STRUCTURES: [Structure; 4] = [
    ("PEM", |b| has(b, b"PRIVATE KEY")),
    // RFC 5958: version 0 or 1, then the algorithm: id-ecPublicKey, rsaEncryption, or id-Ed25519.
    ("PKCS #8", |b| {
        let algorithms: [&[u8]; 3] = [
            b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
            b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
            b"\x06\x03\x2b\x65\x70",
        ];
        b.windows(17).any(|w| {
            matches!(w, [0x02, 0x01, 0x00 | 0x01, 0x30, _, algorithm @ ..] if algorithms.iter().any(|a| algorithm.starts_with(a)))
        })
    }),
    // RFC 5915, P-256: version 1, then 32 bytes.
    ("SEC 1", |b| has(b, b"\x02\x01\x01\x04\x20")),
    // RFC 8017: version 0, then a modulus of 2048 bits.
    ("PKCS #1", |b| has(b, b"\x02\x01\x00\x02\x82\x01\x01\x00")),
];

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The strings of a JSON document, or of one a line, that are not there as they are.
fn strings(bytes: &[u8]) -> Vec<Vec<u8>> {
    fn walk(value: Value, into: &mut Vec<Vec<u8>>) {
        match value {
            Value::String(text) => into.push(text.into_bytes()),
            Value::Array(values) => values.into_iter().for_each(|v| walk(v, into)),
            Value::Object(members) => members.into_iter().for_each(|(_, v)| walk(v, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    match serde_json::from_slice(bytes) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => walk(value, &mut found),
        Ok(_) => {}
        Err(_) => bytes
            .split(|b| *b == b'\n')
            .filter_map(|l| serde_json::from_slice(l).ok())
            .for_each(|v| walk(v, &mut found)),
    }
    found
}

/// What runs of the letters of base64 and of hexadecimal stand for; broken into lines or not, from each of the letters
/// that can be a first one.
fn decoded(bytes: &[u8]) -> Vec<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engines = [GeneralPurpose::new(&STANDARD, config), GeneralPurpose::new(&URL_SAFE, config)];
    let mut found = Vec::new();
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"+/-_".contains(&b);
    let broken: Vec<u8> = bytes.iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
    for text in [bytes, &broken] {
        for run in text.split(|b| !is_letter(*b)).filter(|run| run.len() >= 40) {
            for engine in &engines {
                for from in 0..4 {
                    // A last single letter stands for nothing.
                    let whole = (run.len() - from) / 4 * 4;
                    let rest = if (run.len() - from) % 4 == 1 { 0 } else { (run.len() - from) % 4 };
                    found.extend(engine.decode(&run[from..from + whole + rest]));
                }
            }
        }
        for run in text.split(|b| !b.is_ascii_hexdigit()).filter(|run| run.len() >= 64) {
            found.extend((0..2).filter_map(|from| hex::decode(&run[from..from + (run.len() - from) / 2 * 2]).ok()));
        }
    }
    found
}

/// What is meant where bytes are written as C, and protobuf's text format, escape them: `\\n`, `\\"`, `\\012`, `\\x0a`.
fn unescaped(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut meant = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        meant.extend(&rest[..at]);
        let code = &rest[at + 1..];
        let number = |from: usize, most: usize, base: u32| {
            let digits = code.iter().skip(from).take(most).take_while(|b| char::from(**b).is_digit(base)).count();
            let text = str::from_utf8(&code[from.min(code.len())..][..digits]).ok()?;
            Some((u8::try_from(u32::from_str_radix(text, base).ok()?).ok()?, from + digits))
        };
        let (byte, length) = match code.first() {
            Some(b'n') => (b'\n', 1),
            Some(b'r') => (b'\r', 1),
            Some(b't') => (b'\t', 1),
            Some(b'x') => number(1, 2, 16).unwrap_or((b'\\', 0)),
            Some(b'0'..=b'7') => number(0, 3, 8).unwrap_or((b'\\', 0)),
            Some(other) if other.is_ascii_punctuation() => (*other, 1),
            _ => (b'\\', 0),
        };
        meant.push(byte);
        rest = &code[length..];
    }
    meant.extend(rest);
    (meant != bytes).then_some(meant)
}

fn has_run(place: &Place) -> Utf8PathBuf {
    let rsa = "name: rsa\nsummary: RSA renews.\nprovider:\n  ttl: 2m\n  renew_every: 1m\n  key_type: rsa-2048\n";
    let rsa = place.file("rsa.yaml", rsa);
    // Of files, the keys are on disk while the cell lives, but never here.
    let names = [
        "bundle-rotation",
        "nack-key-mismatch",
        "expired-on-arrival",
        "rotation-files",
        "files-half-written",
        rsa.as_str(),
    ];
    let reports =
        ["json", "html", "junit", "markdown"].map(|format| format!("--report={format}=rotacheck-runs/{format}"));
    let mut arguments = names.to_vec();
    arguments.extend(["--envoy", "1.38.3"]);
    arguments.extend(reports.iter().map(String::as_str));
    place.run(&arguments).with(0, &[]);
    place.root.join("rotacheck-runs")
}

#[test]
fn no_private_key_is_left_on_disk_and_all_of_it_is_private() {
    let place = Place::new();
    let runs = has_run(&place);
    let all = below(&runs);
    let count = |name: &str| all.iter().filter(|path| path.file_name() == Some(name)).count();
    assert_eq!((count("timeline.ndjson"), count("config_dump.json"), count("envoy.log")), (6, 12, 12));
    assert_eq!(private_keys(&runs), [""; 0]);
    let run = place.latest().unwrap();
    let open: Vec<_> = below(&run).into_iter().filter(|path| mode(path) & 0o077 != 0).collect();
    assert_eq!(open, [""; 0]);
}

fn mode(path: &Utf8Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode()
}

/// The control of the test above: a key is found wherever and however it is written.
#[test]
fn a_private_key_that_was_written_would_be_found() {
    let ec = rcgen::KeyPair::generate().unwrap();
    let (pem, der) = (ec.serialize_pem(), ec.serialize_der());
    let standard = base64::engine::general_purpose::STANDARD;
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let rsa =
        [&b"\x30\x82\x04\xa4\x02\x01\x00\x02\x82\x01\x01\x00"[..], &[0xcd; 256], b"\x02\x03\x01\x00\x01"].concat();
    let line = |data: Value| format!("{{\"seq\":0}}\n{}\n{{\"seq\":2}}\n", serde_json::json!({ "data": data }));
    let hidden: Vec<Vec<u8>> = vec![
        pem.clone().into(),
        der.clone(),
        rsa.clone(),
        format!("[warning] the key is {pem}").into(),
        serde_json::json!({ "key": pem }).to_string().into(),
        serde_json::json!({ "key": { "inline_bytes": standard.encode(&pem) } }).to_string().into(),
        serde_json::json!([{ "inline_bytes": standard.encode(&der) }]).to_string().into(),
        line(standard.encode(&rsa).into()).into(),
        line(hex::encode(&der).into()).into(),
        line(url.encode(format!("xy{pem}")).into()).into(),
        line(standard.encode(serde_json::json!({ "pem": standard.encode(&pem) }).to_string()).into()).into(),
        format!("garbage{}", standard.encode(&der)).into(),
        pem.lines().filter(|line| !line.starts_with("-----")).collect::<Vec<_>>().join("\r\n").into(),
    ];
    // As Envoy quotes what it was sent, in a text that JSON may escape once more.
    let octal = |all: bool| {
        der.iter().fold(String::new(), |text, byte| match byte {
            b'\\' | b'"' if !all => format!("{text}\\{}", char::from(*byte)),
            0x20..=0x7e if !all => format!("{text}{}", char::from(*byte)),
            _ => format!("{text}\\{byte:03o}"),
        })
    };
    let body = pem.lines().filter(|line| !line.starts_with("-----")).collect::<Vec<_>>();
    let quoted = [
        octal(false),
        octal(true),
        body.join("\\n"),
        der.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
        pem.bytes().map(|byte| format!("\\{byte:03o}")).collect(),
    ];
    let quoted = quoted.map(|text| format!("refused: goo.gle/debugstr value: \"\\n\\007default{text}\\377\""));
    let hidden = hidden.into_iter().chain(quoted.iter().flat_map(|text| {
        let twice = line(serde_json::json!({ "error": text }));
        [text.clone().into_bytes(), twice.into_bytes()]
    }));
    for (n, bytes) in hidden.enumerate() {
        let place = Place::new();
        let deep = place.root.join("cells/a/proxies/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("certs.json"), "{\"certificates\": []}").unwrap();
        assert_eq!(private_keys(&place.root), [""; 0]);
        fs::write(deep.join("envoy.log"), bytes).unwrap();
        let found = private_keys(&place.root);
        assert!(!found.is_empty(), "number {n} was not found");
        assert!(found.iter().all(|f| f.contains("envoy.log")), "{found:?}");
    }
}

/// And what a run is full of is not taken for one.
#[test]
fn a_certificate_is_no_private_key() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap().self_signed(&key).unwrap();
    for bytes in [certificate.pem().into_bytes(), certificate.der().to_vec(), hex::encode(certificate.der()).into()] {
        assert_eq!(keys_in(&bytes, 4), [""; 0]);
    }
}
