//! Whether an Envoy is Istio's own build.

use std::fs::File;
use std::io::Read as _;

use camino::Utf8Path;

use super::ArtifactError;
use super::store::blocking;

/// The messages that configure the filters which Istio's build adds (istio/proxy, `source/extensions/filters/http`):
/// their names are in every executable that can read them.
const FILTERS: [&[u8]; 2] = [b"io.istio.http.peer_metadata.Config", b"istio.envoy.config.filter.http.alpn"];
const AT_ONCE: usize = 1 << 20;

/// Whether it has the filters that only Istio's build of Envoy has.
pub async fn has_istio_filters(envoy: &Utf8Path) -> Result<bool, ArtifactError> {
    let path = envoy.to_owned();
    blocking(move || File::open(&path).and_then(holds_all).map_err(|e| ArtifactError::io("read", &path, e))).await
}

fn holds_all(mut file: impl std::io::Read) -> std::io::Result<bool> {
    let overlap = FILTERS.iter().map(|name| name.len()).max().unwrap_or(0) - 1;
    let mut found = [false; FILTERS.len()];
    let mut window: Vec<u8> = Vec::with_capacity(AT_ONCE + overlap);
    while (&mut file).take(AT_ONCE as u64).read_to_end(&mut window)? > 0 {
        for (found, name) in found.iter_mut().zip(FILTERS) {
            *found = *found || memchr::memmem::find(&window, name).is_some();
        }
        // A name may lie across two windows.
        window.drain(..window.len().saturating_sub(overlap));
    }
    Ok(found.iter().all(|found| *found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_tell_istios_build_wherever_they_lie() {
        let binary = |names: &[&[u8]], at: usize| {
            let mut bytes = vec![0; at];
            names.iter().for_each(|name| bytes.extend_from_slice(name));
            bytes.extend_from_slice(&[0; 100]);
            holds_all(bytes.as_slice()).unwrap()
        };
        for at in [0, 7, AT_ONCE - 40, AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE - 3] {
            assert!(binary(&FILTERS, at), "{at}");
            assert!(!binary(&FILTERS[..1], at) && !binary(&FILTERS[1..], at), "{at}");
        }
        assert!(!binary(&[], 0));
    }
}
