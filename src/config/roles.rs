//! The `roles` section.

use std::time::Duration;

use super::reader::Section;
use crate::access::{
    ChannelSet, Role, RoleLimits, Roles, SymbolRule, SymbolSet, TopicRule, TopicRuleError,
};
use crate::protocol::INTERVALS_MS;

/// Name that no role may have: it stands for the absence of a role.
pub(super) const NO_ROLE: &str = "none";
/// Max number of roles.
const ROLES_MAX: usize = 1000;
/// Max topic rules per role, so that a pattern resolves quickly.
const RULES_MAX: usize = 1000;
/// Max number of distinct delays, each of which has a shard of its own.
const DELAYS_MAX: usize = 8;
/// Max length of a role's name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Reads all roles; `anonymous` is the role of clients without credentials.
pub(super) fn read(root: &Section<'_>, auth: &Section<'_>) -> Roles {
    let sections = root.named_sections("roles");
    if sections.len() > ROLES_MAX {
        let message = format!("too many roles; expected at most {ROLES_MAX}");
        root.problem("roles", message);
    }
    let roles: Vec<Role> = sections
        .iter()
        .map(|(name, section)| read_one(name, section))
        .collect();
    let mut delays: Vec<_> = roles.iter().map(|role| role.delay).collect();
    delays.sort_unstable();
    delays.dedup();
    if delays.iter().filter(|delay| !delay.is_zero()).count() > DELAYS_MAX {
        let message = format!("too many distinct delays; expected at most {DELAYS_MAX}");
        root.problem("roles", message);
    }
    let anonymous = auth.text("anonymous");
    let named = (anonymous != NO_ROLE).then_some(anonymous.as_str());
    let is_missing = |name: &&str| roles.iter().all(|role| *role.name != **name);
    if let Some(name) = named.filter(is_missing) {
        let mut known: Vec<&str> = roles.iter().map(|role| &*role.name).collect();
        known.push(NO_ROLE);
        let message = format!(
            "unknown role \"{}\": expected one of {}",
            name.escape_debug(),
            known.join(", ")
        );
        auth.problem("anonymous", message);
    }
    Roles::new(roles, named)
}

fn read_one(name: &str, section: &Section<'_>) -> Role {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_name);
    if !fits || name == NO_ROLE {
        section.problem_here(format!(
            "invalid role name: expected 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 . _ -, and not {NO_ROLE}"
        ));
    }
    let rules = parsed(section, "topics", section.texts("topics"), TopicRule::parse);
    if rules.len() > RULES_MAX {
        let message = format!("too many patterns; expected at most {RULES_MAX}");
        section.problem("topics", message);
    }
    let channels = channels(section, &rules);
    let interval = min_interval(section);
    let limits = section.section("limits");
    let mut role = Role::new(name, &rules, channels, interval);
    role.delay = section.duration("delay");
    role.book_depth = section
        .integer_if_any("book_depth")
        .map(|depth| depth as u16);
    role.limits = RoleLimits {
        connections: limits
            .integer_if_any("connections")
            .map(|most| most as usize),
        topics: limits.integer_if_any("topics"),
        requests_per_s: limits.integer_if_any("requests_per_s"),
        snapshot_events: section.integer_if_any("snapshot_events"),
    };
    limits.finish();
    role.publish = publish(section);
    role.may_administer = section.flag("admin");
    role.may_read_metrics = section.flag("metrics");
    section.finish();
    role
}

/// Texts of a key, parsed; those that are invalid are reported.
fn parsed<T, E: std::fmt::Display>(
    section: &Section<'_>,
    key: &str,
    texts: Vec<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Vec<T> {
    let read = |text: String| match parse(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            let message = format!("invalid value \"{}\": {error}", text.escape_debug());
            section.problem(key, message);
            None
        }
    };
    texts.into_iter().filter_map(read).collect()
}

/// Channels of a role; all if the key is absent.
fn channels(section: &Section<'_>, rules: &[TopicRule]) -> ChannelSet {
    let texts = section.texts("channels");
    if texts.is_empty() {
        return ChannelSet::ALL;
    }
    if rules.is_empty() {
        let message = "without effect: the role sees no topics; add topics, e.g. topics: [\"*\"]";
        section.problem("channels", message);
    }
    let parse = |text: &str| ChannelSet::parse(text).map_err(TopicRuleError::Channel);
    let sets = parsed(section, "channels", texts, parse);
    sets.into_iter().fold(ChannelSet::NONE, ChannelSet::with)
}

/// Shortest interval of deliveries, in milliseconds; `None` for 0.
fn min_interval(section: &Section<'_>) -> Option<u16> {
    let interval = section.duration("min_interval");
    if interval.is_zero() {
        return None;
    }
    let known = INTERVALS_MS
        .into_iter()
        .find(|ms| interval == Duration::from_millis(u64::from(*ms)));
    if known.is_none() {
        let all = INTERVALS_MS.map(|ms| format!("{ms}ms")).join(", ");
        section.problem(
            "min_interval",
            format!("unknown interval: expected 0, or one of {all}"),
        );
    }
    known
}

/// Symbols that a role may publish, by source.
fn publish(section: &Section<'_>) -> Vec<(Box<str>, SymbolSet)> {
    let sources = section.named_lists("publish");
    let read = |(source, texts): (String, Vec<String>)| {
        let rules = parsed(section, "publish", texts, SymbolRule::parse);
        (source.into(), SymbolSet::new(rules))
    };
    sources.into_iter().map(read).collect()
}

/// Reports sources in `publish` that do not accept events.
pub(super) fn check_sources(root: &Section<'_>, roles: &Roles, push_sources: &[&str]) {
    for role in roles.iter() {
        for (source, _) in &role.publish {
            if push_sources.contains(&&**source) {
                continue;
            }
            let expected = match push_sources {
                [] => "the config has no source of kind push".to_owned(),
                some => format!("expected one of {}", some.join(", ")),
            };
            let message = format!(
                "role {} may publish to an unknown push source \"{}\": {expected}",
                role.name,
                source.escape_debug()
            );
            root.problem("roles", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Config;

    const SOURCES: &str =
        "sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]\n";

    fn problems(text: &str) -> Vec<String> {
        let parsed = Config::parse(&format!("{SOURCES}{text}"), "f");
        let found = parsed.err().map(|error| error.problems).unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_of_a_role_is_read() {
        let text = "roles: {a: {topics: [\"quote:A*\", \"bar:*\"], channels: [quote, \"bar:1m\"], min_interval: 250ms, delay: 15m, \
                    snapshot_events: 7, book_depth: 10, limits: {connections: 2, topics: 3, requests_per_s: 4}, \
                    publish: {in: [A, \"B*\"]}, admin: true, metrics: true}, b: {}}\nauth: {anonymous: a}\n";
        let config = Config::parse(&format!("{SOURCES}{text}"), "f").expect("a valid config");
        let role = config.roles.anonymous().expect("the role of the key");
        assert_eq!(
            role.rule(),
            "role \"a\" allows quote:A*, bar:* on channels quote, bar:1m with mode interval of at least 250 ms"
        );
        assert_eq!(role.delay, Duration::from_secs(900));
        assert_eq!(config.roles.delays(), [role.delay]);
        let limits = (
            role.limits.connections,
            role.limits.topics,
            role.limits.requests_per_s,
        );
        assert_eq!(limits, (Some(2), Some(3), Some(4)));
        assert_eq!(
            (role.limits.snapshot_events, role.book_depth),
            (Some(7), Some(10))
        );
        assert!(role.may_publish("in", "A") && role.may_publish("in", "BC"));
        assert!(!role.may_publish("in", "AB") && !role.may_publish("out", "A"));
        assert!(role.may_administer && role.may_read_metrics);
        let other = config.roles.named("b").expect("the other role");
        assert_eq!(other.rule(), "role \"b\" allows no topics");
        assert!(!other.may_administer && !other.may_read_metrics && other.publish.is_empty());
    }

    #[test]
    fn problems_of_roles_are_named_with_what_is_expected() {
        for (text, wanted) in [
            (
                "roles: {a: {topics: [quote]}}",
                "roles.a.topics: invalid value \"quote\": expected *, channel:symbol",
            ),
            (
                "roles: {a: {topics: [\"candle:*\"]}}",
                "unknown channel \"candle\"",
            ),
            (
                "roles: {a: {topics: [\"bar:*:2m\"]}}",
                "unknown interval \"2m\"",
            ),
            (
                "roles: {a: {topics: [\"quote:A*B\"]}}",
                "invalid symbol \"A*B\"",
            ),
            (
                "roles: {a: {channels: [quote]}}",
                "roles.a.channels: without effect",
            ),
            (
                "roles: {a: {topics: [\"*\"], channels: [books]}}",
                "unknown channel \"books\"",
            ),
            (
                "roles: {a: {min_interval: 15ms}}",
                "expected 0, or one of 10ms, 25ms",
            ),
            (
                "roles: {a: {publish: {tape: [\"*\"]}}}",
                "unknown push source \"tape\": expected one of in",
            ),
            (
                "roles: {a: {publish: {in: [\"A*B\"]}}}",
                "roles.a.publish: invalid value \"A*B\"",
            ),
            (
                "roles: {a: {publish: [in]}}",
                "roles.a.publish: expected a section",
            ),
            (
                "roles: {a: {limits: {topic: 1}}}",
                "roles.a.limits.topic: unknown key; did you mean topics?",
            ),
            (
                "roles: {a: {limits: {topics: 0}}}",
                "roles.a.limits.topics: invalid value \"0\"",
            ),
            (
                "roles: {a: {topic: []}}",
                "roles.a.topic: unknown key; did you mean topics?",
            ),
            ("roles: {none: {}}", "roles.none: invalid role name"),
            ("roles: {\"a b\": {}}", "invalid role name"),
            (
                "roles: {a: {}}\nauth: {anonymous: b}",
                "auth.anonymous: unknown role \"b\": expected one of a, none",
            ),
        ] {
            let found = problems(text);
            assert!(
                found.iter().any(|problem| problem.contains(wanted)),
                "{wanted} is not among {found:#?}"
            );
        }
    }
}
