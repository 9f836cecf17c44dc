//! Sender of a request: the requested host, and whether it is a program on this machine.
//!
//! A web page can make its visitor's browser send requests to any address (DNS rebinding), and
//! behind a reverse proxy every client appears local. Therefore the host must be one of the
//! listener's own, and only a direct request to a loopback name counts as local.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName, VIA};
use hyper::{StatusCode, header};

use super::Settings;
use super::forwarded;
use super::response::{HttpResponse, refusal};
use crate::access::Principal;
use crate::config::{Authority, HostRule, OriginRule, Scheme, WebOrigin};
use crate::shard::Credentials;

const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Headers that reverse proxies add, besides `X-Forwarded-*`.
const FORWARDING: [HeaderName; 3] = [FORWARDED, VIA, HeaderName::from_static("x-real-ip")];

/// Listener with the names under which it is reachable.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Listen address.
    pub address: SocketAddr,
    /// Scheme of its addresses: `https` with TLS.
    pub scheme: Scheme,
    /// Host name of the machine.
    pub hostname: String,
    /// True if each connection begins with a PROXY header (config `proxy_protocol`); then none is
    /// local.
    pub proxy_protocol: bool,
}

impl Listener {
    /// Creates a listener for an address of this machine.
    pub fn new(address: SocketAddr, scheme: Scheme) -> Self {
        let name = rustix::system::uname();
        let hostname = name.nodename().to_string_lossy().to_ascii_lowercase();
        Self {
            address,
            scheme,
            hostname,
            proxy_protocol: false,
        }
    }

    /// The same listener, with or without a PROXY header on each connection.
    #[must_use]
    pub fn behind_proxy_protocol(self, proxy_protocol: bool) -> Self {
        Self {
            proxy_protocol,
            ..self
        }
    }

    /// True if the listener is only reachable from this machine.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// True for `localhost`, addresses and, beyond loopback, the host name. DNS rebinding needs a
    /// name, so any address is accepted unless the listener is on loopback; network address
    /// translation may have changed it.
    fn is_own(&self, host: &Authority) -> bool {
        if self.is_loopback() {
            return host.is_loopback();
        }
        host.host == "localhost" || host.ip().is_some() || host.host == self.hostname
    }
}

/// The sender of a request.
#[derive(Debug)]
pub(super) struct Caller {
    /// Origin under which the sender reached the server; behind a trusted proxy, the origin of the
    /// proxy.
    own: WebOrigin,
    /// True for a program on this machine that requested a loopback name without a proxy.
    pub is_local: bool,
    /// Address of the connection, or that of its PROXY header.
    pub peer: IpAddr,
    /// Address of the client; behind trusted proxies, as they report it.
    pub address: IpAddr,
    listens_on_loopback: bool,
    /// Identity on whose behalf topics are read.
    pub principal: Principal,
    /// Credentials of the request, once they have been checked.
    pub credentials: Credentials,
}

impl Caller {
    /// Identifies the sender; rejects a request for another host.
    pub(super) fn identify(
        listener: &Listener,
        settings: &Settings,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<Self, HttpResponse> {
        let peer = peer.to_canonical();
        let trusted = &settings.trusted_proxies;
        let by_proxy = forwarded::is_trusted(trusted, peer);
        let address = if by_proxy {
            forwarded::client(headers, trusted, peer)
        } else {
            peer
        };
        let requested = one_host(headers, &HOST)?.ok_or_else(|| {
            refusal(
                StatusCode::BAD_REQUEST,
                "missing `Host` header: expected exactly one",
            )
        })?;
        let (mut host, mut scheme) = (requested, listener.scheme);
        if by_proxy {
            let forwarded = HeaderName::from_static(X_FORWARDED_HOST);
            host = one_host(headers, &forwarded)?.unwrap_or(host);
            scheme = forwarded_scheme(headers)?.unwrap_or(scheme);
        }
        let is_allowed = |rule: &HostRule| rule.covers(&host);
        if !listener.is_own(&host) && !settings.allowed_hosts.iter().any(is_allowed) {
            let message = format!(
                "host {host} is not served here; add it to allowed_hosts, or use the address the server listens on"
            );
            return Err(refusal(StatusCode::MISDIRECTED_REQUEST, &message));
        }
        let is_local =
            peer.is_loopback() && !by_proxy && !is_forwarded(headers) && host.is_loopback();
        let is_local = is_local && !listener.proxy_protocol;
        Ok(Self {
            own: WebOrigin::new(scheme, host),
            is_local,
            peer,
            address,
            listens_on_loopback: listener.is_loopback(),
            principal: Principal::nobody(),
            credentials: Credentials::NotNeeded,
        })
    }

    /// Client of another server of the cluster, which has identified it.
    pub(super) fn forwarded(address: IpAddr, is_local: bool) -> Self {
        let host = Authority {
            host: String::new(),
            port: None,
        };
        Self {
            own: WebOrigin::new(Scheme::Http, host),
            is_local,
            peer: address,
            address,
            listens_on_loopback: false,
            principal: Principal::nobody(),
            credentials: Credentials::NotNeeded,
        }
    }

    /// True for a program on this machine that reached a listener of loopback.
    pub(super) const fn is_local_on_loopback(&self) -> bool {
        self.is_local && self.listens_on_loopback
    }

    /// True if a page with the request's `Origin` may open the feed. Programs send no `Origin`,
    /// browsers always do.
    pub(super) fn may_use(&self, rules: &[OriginRule], headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return true;
        };
        if origins.next().is_some() {
            return false;
        }
        let origin = origin.to_str().ok().and_then(WebOrigin::parse);
        rules.iter().any(|rule| match (rule, &origin) {
            (OriginRule::Any, _) => true,
            (_, None) => false,
            (OriginRule::Own, Some(origin)) => *origin == self.own,
            (OriginRule::Loopback, Some(origin)) => {
                self.listens_on_loopback && self.is_local && origin.authority.is_loopback()
            }
            (OriginRule::One(allowed), Some(origin)) => origin == allowed,
        })
    }
}

/// Single host of a header; rejects repeated and invalid values.
fn one_host(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Authority>, HttpResponse> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let host = value.to_str().ok().and_then(Authority::parse);
    if values.next().is_some() || host.is_none() {
        let message = format!("invalid `{name}`: expected one host, e.g. feed.example.com:8080");
        return Err(refusal(StatusCode::BAD_REQUEST, &message));
    }
    Ok(host)
}

/// Scheme by which the client reached a trusted proxy; some proxies send `ws` or `wss` for a
/// WebSocket.
fn forwarded_scheme(headers: &HeaderMap) -> Result<Option<Scheme>, HttpResponse> {
    let mut values = headers.get_all(X_FORWARDED_PROTO).iter();
    match (
        values.next().map(header::HeaderValue::as_bytes),
        values.next(),
    ) {
        (None, _) => Ok(None),
        (Some(b"http" | b"ws"), None) => Ok(Some(Scheme::Http)),
        (Some(b"https" | b"wss"), None) => Ok(Some(Scheme::Https)),
        _ => Err(refusal(
            StatusCode::BAD_REQUEST,
            "invalid `x-forwarded-proto`: expected http or https, once",
        )),
    }
}

/// True if the request has a header of a reverse proxy.
fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDING.iter().any(|name| headers.contains_key(name))
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("x-forwarded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(proxies: &str) -> Settings {
        let config = format!(
            "allowed_hosts: [feed.example]\nallowed_origins: [self, loopback, \"https://app.example\"]\n\
             trusted_proxies: [{proxies}]\nsources: [{{name: s, kind: push, open: true, instruments: [{{symbol: A}}]}}]"
        );
        let config = crate::config::Config::parse(&config, "test").expect("a config");
        Settings::of(&config, Vec::new(), Vec::new(), Vec::new())
    }

    fn listener(address: &str) -> Listener {
        Listener {
            address: address.parse().expect("an address"),
            scheme: Scheme::Http,
            hostname: "box".to_owned(),
            proxy_protocol: false,
        }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a header value"));
        }
        headers
    }

    /// The status, or 200.
    fn status(listen: &str, lines: &[(&'static str, &str)]) -> u16 {
        let peer = IpAddr::from([127, 0, 0, 1]);
        Caller::identify(&listener(listen), &settings(""), peer, &headers(lines))
            .map_or_else(|refused| refused.status().as_u16(), |_| 200)
    }

    #[test]
    fn only_hosts_of_the_listener_are_accepted() {
        let loopback = "127.0.0.1:8080";
        for own in [
            "localhost",
            "LOCALHOST.:9000",
            "127.0.0.1:8080",
            "127.0.0.2",
            "[::1]:8080",
            "feed.example",
        ] {
            assert_eq!(status(loopback, &[("host", own)]), 200, "{own}");
        }
        for other in [
            "evil.example:8080",
            "10.0.0.1",
            "0.0.0.0:8080",
            "box",
            "127.0.0.1.evil",
            "localhost.evil",
        ] {
            assert_eq!(status(loopback, &[("host", other)]), 421, "{other}");
        }
        for own in ["10.0.0.1:80", "[fd00::1]", "box:8080", "localhost"] {
            assert_eq!(status("0.0.0.0:8080", &[("host", own)]), 200, "{own}");
        }
        assert_eq!(status("0.0.0.0:8080", &[("host", "evil.example")]), 421);
        for broken in [
            &[][..],
            &[("host", "localhost"), ("host", "localhost")],
            &[("host", "a b")],
        ] {
            assert_eq!(status(loopback, broken), 400, "{broken:?}");
        }
    }

    #[test]
    fn only_direct_requests_for_a_loopback_name_are_local() {
        let is_local = |proxies: &str, peer: &str, more: &[(&'static str, &str)]| {
            let mut headers = headers(more);
            headers
                .entry("host")
                .or_insert("localhost:8080".parse().expect("a header value"));
            let peer = peer.parse().expect("an IP");
            Caller::identify(&listener("[::]:8080"), &settings(proxies), peer, &headers)
                .is_ok_and(|caller| caller.is_local)
        };
        assert!(is_local("", "127.0.0.1", &[]) && is_local("", "::ffff:127.0.0.1", &[]));
        assert!(!is_local("", "10.0.0.1", &[]));
        assert!(
            !is_local("127.0.0.0/8", "127.0.0.1", &[]),
            "the proxy itself"
        );
        assert!(
            !is_local("", "127.0.0.1", &[("host", "feed.example")]),
            "through a proxy that adds no header"
        );
        for mark in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded",
            "forwarded",
            "via",
            "x-real-ip",
        ] {
            assert!(!is_local("", "127.0.0.1", &[(mark, "x")]), "{mark}");
        }
    }

    fn may(proxies: &str, lines: &[(&'static str, &str)]) -> bool {
        let (settings, headers) = (settings(proxies), headers(lines));
        let peer = IpAddr::from([127, 0, 0, 1]);
        let caller = Caller::identify(&listener("127.0.0.1:8080"), &settings, peer, &headers)
            .expect("a host of the listener");
        caller.may_use(&settings.allowed_origins, &headers)
    }

    #[test]
    fn only_own_and_configured_origins_are_accepted() {
        let from = |host: &str, origin: &str| may("", &[("host", host), ("origin", origin)]);
        assert!(may("", &[("host", "localhost")]), "a program");
        assert!(from("feed.example:8080", "http://feed.example:8080"));
        assert!(from("feed.example", "http://feed.example:80"));
        assert!(from("feed.example", "https://app.example"));
        assert!(from("localhost:8080", "http://[::1]:3000"));
        for evil in [
            "null",
            "http://evil.example",
            "https://feed.example",
            "http://feed.example:8080",
            "http://feed.example.evil",
            "http://localhost:3000",
            "http://app.example",
            "https://app.example:8443",
            "https://app.example/",
        ] {
            assert!(!from("feed.example", evil), "{evil}");
        }
        for evil in [
            "null",
            "http://localhost.evil",
            "http://127.0.0.1.evil",
            "http://localhost@evil",
            "file://localhost",
            "http://127.0.0.1:9600.evil",
        ] {
            assert!(!from("localhost", evil), "{evil}");
        }
        let twice = [
            ("host", "localhost"),
            ("origin", "http://localhost"),
            ("origin", "http://localhost"),
        ];
        assert!(!may("", &twice));
    }

    #[test]
    fn forwarded_hosts_and_schemes_are_trusted_from_trusted_proxies_only() {
        let lines = [
            ("host", "127.0.0.1:8080"),
            ("x-forwarded-host", "feed.example"),
            ("x-forwarded-proto", "https"),
            ("origin", "https://feed.example"),
        ];
        assert!(may("127.0.0.1", &lines));
        assert!(!may("", &lines) && !may("10.0.0.1", &lines));
        let status = |lines: &[(&'static str, &str)]| {
            let peer = IpAddr::from([127, 0, 0, 1]);
            Caller::identify(
                &listener("127.0.0.1:8080"),
                &settings("127.0.0.1"),
                peer,
                &headers(lines),
            )
            .map_or_else(|refused| refused.status().as_u16(), |_| 200)
        };
        let host = ("host", "127.0.0.1");
        assert_eq!(status(&[host, ("x-forwarded-host", "evil.example")]), 421);
        assert_eq!(
            status(&[host, ("x-forwarded-host", "feed.example, evil")]),
            400
        );
        assert_eq!(status(&[host, ("x-forwarded-proto", "gopher")]), 400);
        assert_eq!(status(&[host, ("x-forwarded-proto", "wss")]), 200);
    }
}
