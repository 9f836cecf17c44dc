//! Trading page and client module from `dashboards/trading/`, embedded in the binary and never read
//! from disk.

use std::collections::HashMap;
use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY,
};
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use super::response::{HttpResponse, text, with_type};

/// Content security policy: the page may only load from and connect to this server, without inline
/// code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "dashboards/trading/"]
#[exclude = "*.d.ts"]
#[exclude = "*.md"]
#[exclude = "package.json"]
struct Embedded;

/// Embedded file, ready to be sent.
pub(super) struct File {
    plain: Bytes,
    gzip: Bytes,
    etag: HeaderValue,
    content_type: &'static str,
}

/// Files by request path; compressed on the first request.
static FILES: OnceLock<HashMap<String, File>> = OnceLock::new();

fn files() -> HashMap<String, File> {
    let named = Embedded::iter().filter_map(|name| Embedded::get(&name).map(|file| (name, file)));
    let path = |name: &str| {
        if name == "index.html" {
            "/".to_owned()
        } else {
            format!("/{name}")
        }
    };
    named
        .map(|(name, file)| {
            (
                path(&name),
                File::new(&name, Bytes::from(file.data.into_owned())),
            )
        })
        .collect()
}

impl File {
    /// File for a request path, compared literally: nothing is decoded or resolved.
    pub(super) async fn at(path: String) -> Option<&'static Self> {
        if let Some(files) = FILES.get() {
            return files.get(&path);
        }
        // Not on a thread of the runtime, because the first request compresses all files.
        tokio::task::spawn_blocking(move || FILES.get_or_init(files).get(&path))
            .await
            .ok()
            .flatten()
    }

    fn new(name: &str, plain: Bytes) -> Self {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed
            .write_all(&plain)
            .expect("writing to memory cannot fail");
        let gzip = packed
            .finish()
            .expect("writing to memory cannot fail")
            .into();
        let sum: String = Sha256::digest(&plain)
            .iter()
            .take(12)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let etag =
            HeaderValue::from_str(&format!("W/\"{sum}\"")).expect("hexadecimal is a header value");
        Self {
            plain,
            gzip,
            etag,
            content_type: content_type(name),
        }
    }

    /// The file, or 304 if the client has it; compressed if the client accepts that.
    pub(super) fn respond(&self, requested: &HeaderMap) -> HttpResponse {
        // Weak comparison (RFC 9110, section 13.1.2).
        let is_own = |tag: &str| {
            tag == "*" || tag.trim_start_matches("W/").as_bytes() == &self.etag.as_bytes()[2..]
        };
        let is_known = values(requested, &IF_NONE_MATCH).any(is_own);
        let takes_gzip = values(requested, &ACCEPT_ENCODING).any(is_gzip);
        let (status, body) = match (is_known, takes_gzip) {
            (true, _) => (StatusCode::NOT_MODIFIED, Bytes::new()),
            (false, true) => (StatusCode::OK, self.gzip.clone()),
            (false, false) => (StatusCode::OK, self.plain.clone()),
        };
        let mut response = with_type(text(status, body), self.content_type);
        let headers = response.headers_mut();
        headers.insert(ETAG, self.etag.clone());
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if status == StatusCode::OK && takes_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // Cross-origin isolated pages have precise clocks and workers that can sleep.
        headers.insert(
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        );
        headers.insert(
            HeaderName::from_static("cross-origin-embedder-policy"),
            HeaderValue::from_static("require-corp"),
        );
        response
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// True for `gzip` and `gzip;q=0.5`, false for `gzip;q=0`.
fn is_gzip(coding: &str) -> bool {
    let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
    let is_refused = quality
        .trim()
        .strip_prefix("q=")
        .is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0));
    name.trim().eq_ignore_ascii_case("gzip") && !is_refused
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        for (requested, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("br", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(requested));
            assert_eq!(
                values(&headers, &ACCEPT_ENCODING).any(is_gzip),
                takes,
                "{requested}"
            );
        }
    }
}
