//! Accepted hosts, browser origins and trusted proxies.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Host and port of a `Host` header or an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Host in lower case; an IPv6 address without brackets.
    pub host: String,
    /// Port; `None`: the default of the scheme.
    pub port: Option<u16>,
}

impl Authority {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, after) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':')?),
            };
            (address, port)
        } else {
            let (host, port) = text
                .split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port)));
            // A trailing dot (the DNS root) does not change the name.
            (host.strip_suffix('.').unwrap_or(host), port)
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_valid = host.bytes().all(is_name) && !host.split('.').any(str::is_empty);
        if !text.starts_with('[') && !is_valid {
            return None;
        }
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// IP address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }

    /// True if the host is `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// One entry of `allowed_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRule {
    /// Any host (`*`).
    Any,
    /// All subdomains (`*.example.com`); the value is `.example.com`.
    Below(String),
    /// A single host (`feed.example.com`), optionally with a port.
    One(Authority),
}

impl HostRule {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            let name = Authority::parse(suffix)?;
            return (name.port.is_none() && name.ip().is_none())
                .then(|| Self::Below(format!(".{}", name.host)));
        }
        Authority::parse(text).map(Self::One)
    }

    /// True if the rule covers a host; an entry without a port covers every port.
    pub fn covers(&self, host: &Authority) -> bool {
        match self {
            Self::Any => true,
            Self::Below(suffix) => host.host.ends_with(suffix.as_str()),
            Self::One(own) => {
                let same = own.host == host.host || own.ip().is_some() && own.ip() == host.ip();
                same && (own.port.is_none() || own.port == host.port)
            }
        }
    }
}

/// Scheme of an origin or of a client connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http` and `ws`.
    Http,
    /// `https` and `wss`.
    Https,
}

impl Scheme {
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Browser origin: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port; the port is always set.
    pub authority: Authority,
}

impl WebOrigin {
    /// Creates an origin from its scheme, host and port.
    pub fn new(scheme: Scheme, mut authority: Authority) -> Self {
        authority.port.get_or_insert(scheme.default_port());
        Self { scheme, authority }
    }

    /// Parses `scheme://host` or `scheme://host:port`; other schemes, paths and `null` are `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        Some(Self::new(scheme, Authority::parse(rest)?))
    }
}

/// One entry of `allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginRule {
    /// Any origin (`*`), including `null`.
    Any,
    /// Origin of the address by which the client reached the server (`self`).
    Own,
    /// Any loopback origin, for clients on the server's machine (`loopback`).
    Loopback,
    /// A single origin (`https://app.example.com`).
    One(WebOrigin),
}

impl OriginRule {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::Any),
            "self" => Some(Self::Own),
            "loopback" => Some(Self::Loopback),
            other => WebOrigin::parse(other).map(Self::One),
        }
    }
}

/// One entry of `trusted_proxies`: an address, or a network as in `10.0.0.0/8`.
pub(super) fn parse_proxy(text: &str) -> Option<IpNet> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(|| address(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_hosts_with_numeric_ports_and_nothing_else() {
        for (text, host, port) in [
            ("Feed.Example.", "feed.example", None),
            ("localhost:8080", "localhost", Some(8080)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:8080", "::1", Some(8080)),
            ("[::1]", "::1", None),
        ] {
            let found = Authority::parse(text).map(|found| (found.host, found.port));
            assert_eq!(found, Some((host.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            ".",
            "..",
            "a..",
            "a..b",
            ".a",
            ":80",
            "a b",
            "a@b",
            "a/b",
            "a:",
            "a:+1",
            "a:99999",
            "127.0.0.1:9600.evil",
            "[::1]x",
            "[evil]",
            "::1",
            "a:80:80",
            "évil",
        ] {
            assert!(Authority::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn host_rules_match_exact_names_and_subdomains() {
        let covers = |rule: &str, host: &str| {
            let rule = HostRule::parse(rule).expect("a rule");
            rule.covers(&Authority::parse(host).expect("a host"))
        };
        assert!(covers("feed.example", "FEED.example:8443"));
        assert!(covers("feed.example:8443", "feed.example:8443"));
        assert!(!covers("feed.example:8443", "feed.example"));
        assert!(covers("*.example", "a.b.example"));
        assert!(!covers("*.example", "example") && !covers("*.example", "evilexample"));
        assert!(covers("*", "anything"));
        assert!(
            HostRule::parse("::1").is_none(),
            "an IPv6 address has brackets"
        );
        assert!(covers("[::1]", "[0:0::1]:80"));
        assert!(HostRule::parse("http://feed.example").is_none());
    }

    #[test]
    fn trusted_proxies_are_networks_or_addresses() {
        let covers = |text: &str, ip: &str| {
            parse_proxy(text)
                .expect("a network")
                .contains(&ip.parse::<IpAddr>().expect("an IP"))
        };
        assert!(covers("127.0.0.1", "127.0.0.1") && !covers("127.0.0.1", "127.0.0.2"));
        assert!(covers("10.0.0.0/8", "10.9.8.7") && covers("fd00::/8", "fd00::1"));
        assert!(parse_proxy("10.0.0.0/99").is_none() && parse_proxy("proxy").is_none());
    }
}
