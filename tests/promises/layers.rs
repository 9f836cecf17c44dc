//! Structure that the compiler does not enforce: dependencies between modules, and lengths of
//! files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// All Rust files below a folder of the project, with path and text.
pub(crate) fn sources(folder: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(env!("CARGO_MANIFEST_DIR"))?
                    .display()
                    .to_string();
                found.push((name, std::fs::read_to_string(&path)?));
            }
        }
    }
    Ok(found)
}

/// Part of a file before its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
}

/// Files of the product, without files of tests.
pub(crate) fn product_files() -> Result<Vec<(String, String)>> {
    let all = sources("src")?.into_iter();
    let product_only = all
        .filter(|(name, _)| !name.contains("/tests/") && !name.ends_with("/tests.rs"))
        .map(|(name, text)| (name, product(&text).to_owned()));
    Ok(product_only.collect())
}

/// First words of a doc comment that defines by a clause instead of a noun.
const CLAUSE_WORDS: [&str; 6] = ["What", "Where", "Whether", "Who", "How", "When"];
const CLAUSES_PERCENT_MAX: usize = 3;

/// The modules that each module at the top level may use.
const ALLOWED: [(&str, &str); 32] = [
    // Vocabulary, and tools without knowledge of the product.
    ("fatal", ""),
    ("files", ""),
    ("printable", ""),
    ("tls", "files"),
    ("topic", "market"),
    ("market", "topic"),
    ("clock", "market"),
    ("protocol", "market topic"),
    ("codec", "market printable protocol topic"),
    ("histogram", ""),
    ("metrics", "histogram protocol topic"),
    // The path of an event.
    ("limits", "protocol"),
    ("admission", "limits market"),
    ("log", "codec limits market protocol topic"),
    ("bus", "clock limits log market metrics protocol topic"),
    (
        "cluster",
        "bus clock codec files log market metrics protocol topic",
    ),
    (
        "source",
        "bus clock files log market metrics printable protocol",
    ),
    ("replay", "bus files market printable source"),
    ("access", "log market protocol topic"),
    ("auth", "access market metrics"),
    ("session", "access auth codec log market protocol topic"),
    (
        "outbox",
        "access codec histogram limits log market protocol session topic",
    ),
    (
        "shard",
        "access admission auth bus clock codec fatal limits log market metrics outbox protocol session topic",
    ),
    // Surroundings of the event path.
    (
        "config",
        "access admission auth cluster files limits log market printable protocol replay source tls",
    ),
    ("state", "bus clock files log market printable"),
    (
        "server",
        "access admission auth clock cluster codec config limits log market metrics outbox printable protocol replay shard source tls",
    ),
    (
        "app",
        "access auth bus clock cluster config fatal files log market metrics protocol replay server shard source state tls",
    ),
    // Clients of a server.
    ("client", "codec files market printable protocol tls topic"),
    (
        "load",
        "client clock codec market printable protocol tls topic",
    ),
    (
        "cli",
        "app auth client clock cluster codec config load market printable protocol replay server shard source tls topic",
    ),
    ("lib", "cli"),
    ("main", "cli"),
];

/// Modules that use each other, with the reason.
const MUTUAL: [(&str, &str); 1] = [
    // A topic contains a symbol; an instrument lists its channels.
    ("market", "topic"),
];

/// Modules named after `crate::` in a text, without comments.
fn used_modules(text: &str) -> BTreeSet<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let names = code.flat_map(|line| line.split("crate::").skip(1));
    names
        .map(|rest| {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            rest.chars().take_while(|letter| is_name(*letter)).collect()
        })
        .collect()
}

fn top_level(name: &str) -> &str {
    let path = name.trim_start_matches("src/");
    path.split('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs")
}

#[test]
fn modules_use_only_what_the_layers_allow() -> Result<()> {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(module, uses)| (*module, uses.split_whitespace().collect()))
        .collect();
    for (name, text) in product_files()? {
        let module = top_level(&name);
        let may = allowed
            .get(module)
            .with_context(|| format!("{name}: the list of layers lacks {module}"))?;
        for used in used_modules(&text) {
            let is_module = allowed.contains_key(used.as_str());
            assert!(
                used == module || !is_module || may.contains(used.as_str()),
                "{name} uses {used}, which the list of layers does not allow"
            );
        }
    }
    Ok(())
}

#[test]
fn no_two_modules_depend_on_each_other() {
    // Every allowed dependency points to an earlier module, except for the listed pairs.
    let position: BTreeMap<&str, usize> = ALLOWED
        .iter()
        .enumerate()
        .map(|(at, (module, _))| (*module, at))
        .collect();
    for (at, (module, uses)) in ALLOWED.iter().enumerate() {
        for used in uses.split_whitespace() {
            let is_mutual = MUTUAL.contains(&(module, used)) || MUTUAL.contains(&(used, module));
            assert!(
                position[used] < at || is_mutual,
                "{module} uses {used}, which comes after it"
            );
        }
    }
}

#[test]
fn pure_modules_do_not_use_the_runtime() -> Result<()> {
    let (runtime, sockets) = (&["tokio::"][..], &["tokio::", "std::net", "socket2"][..]);
    let pure = [
        ("src/market/", sockets),
        ("src/topic.rs", sockets),
        ("src/protocol/", sockets),
        ("src/codec/", sockets),
        ("src/log/replica.rs", sockets),
        ("src/log/topic_state.rs", sockets),
        ("src/log/catalog.rs", sockets),
        ("src/access/", sockets),
        // Addresses are values.
        ("src/auth/", runtime),
        ("src/outbox/", sockets),
        ("src/session/", sockets),
        ("src/bus/derive", sockets),
        ("src/state/", sockets),
        // Addresses are values of the config.
        ("src/config/", runtime),
    ];
    for (name, text) in product_files()? {
        let rules = pure.iter().filter(|(place, _)| name.starts_with(place));
        for word in rules.flat_map(|(_, words)| *words) {
            let names_it =
                |line: &&str| !line.trim_start().starts_with("//") && line.contains(word);
            let found = text.lines().find(names_it);
            assert_eq!(
                found, None,
                "{name} is a pure module and must not use {word}"
            );
        }
    }
    Ok(())
}

/// Names whose use outside their file shows a conflation decision made there.
const CONFLATION_WORDS: [&str; 5] = [
    "Kind::Event",
    "Kind::State",
    "Kind::Bar",
    "Channel::Bar",
    "bar.done",
];

#[test]
fn conflation_rules_are_in_one_file() -> Result<()> {
    let delivery = [
        "src/log/",
        "src/outbox/",
        "src/protocol/delivery.rs",
        "src/session/",
        "src/shard/",
    ];
    for (name, text) in product_files()? {
        let is_delivery = delivery.iter().any(|place| name.starts_with(place));
        if !is_delivery || name == "src/log/conflation.rs" {
            continue;
        }
        let found = CONFLATION_WORDS.iter().find(|word| text.contains(**word));
        assert_eq!(
            found, None,
            "{name} decides by the kind of a channel; use src/log/conflation.rs"
        );
    }
    Ok(())
}

#[test]
fn a_shard_accesses_sockets_only_through_its_transport() -> Result<()> {
    for (name, text) in product_files()? {
        if !name.starts_with("src/shard/") || name == "src/shard/transport.rs" {
            continue;
        }
        for word in ["TcpStream", "tokio::net", "rustix::", "socket2"] {
            assert!(
                !text.contains(word),
                "{name} uses {word}; sockets belong to src/shard/transport.rs"
            );
        }
    }
    Ok(())
}

/// Modules that act on behalf of clients.
const CLIENT_SIDE: [&str; 4] = ["src/session/", "src/server/", "src/shard/", "src/outbox/"];

/// Methods of the catalog that look topics and instruments up.
const LOOKUPS: [&str; 14] = [
    "find",
    "instrument",
    "instruments",
    "instruments_at",
    "is_listed",
    "is_there",
    "known",
    "matching",
    "nearest",
    "of_source",
    "of_symbol",
    "source",
    "symbols",
    "topic",
];

/// Direct reads of the catalog, each with the reason why they reveal nothing to clients.
const DIRECT_READS: [(&str, &str, &str); 4] = [
    (
        "src/outbox/",
        "topic",
        "properties of subscribed topics, which the session resolved through access",
    ),
    (
        "src/shard/actions.rs",
        "topic",
        "the source of a subscribed topic, to start a replay that waits for demand",
    ),
    (
        "src/shard/recovery.rs",
        "is_listed",
        "topics that ended during an overrun; sessions filter those that are offered",
    ),
    (
        "src/shard/route.rs",
        "instrument",
        "instruments of a log item; subscribers are notified, and sessions filter what is offered",
    ),
];

/// Files that pass the catalog on to access without reading it.
const CATALOG_CARRIERS: [&str; 2] = ["src/shard/command.rs", "src/shard/route.rs"];

/// Lookup methods called directly on a catalog, also across line breaks.
fn catalog_lookups(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let squeezed: String = code.flat_map(str::split_whitespace).collect();
    let calls = squeezed.split("catalog").skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix("()").unwrap_or(rest);
        let (method, _) = rest.strip_prefix('.')?.split_once('(')?;
        LOOKUPS.contains(&method).then(|| method.to_owned())
    });
    calls.collect()
}

#[test]
fn clients_reach_the_catalog_only_through_access() -> Result<()> {
    let mut used = BTreeSet::new();
    for (name, text) in product_files()? {
        if !CLIENT_SIDE.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        for method in catalog_lookups(&text) {
            let excepted = DIRECT_READS
                .iter()
                .find(|(place, known, _)| name.starts_with(place) && *known == method);
            let (place, known, _) = excepted.with_context(|| {
                format!("{name} calls `{method}` of the catalog; read it through access::Visible")
            })?;
            used.insert((*place, *known));
        }
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let code: Vec<&str> = text.lines().filter(is_code).collect();
        let names_catalog = code
            .join("\n")
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':')
            .any(|word| word == "Catalog" || word.ends_with("log::Catalog"));
        assert!(
            !names_catalog || CATALOG_CARRIERS.contains(&name.as_str()),
            "{name} uses the type Catalog; use access::Visible instead"
        );
    }
    for (place, method, _) in DIRECT_READS {
        assert!(
            used.contains(&(place, method)),
            "{place} no longer calls `{method}`: remove the exception"
        );
    }
    Ok(())
}

#[test]
fn files_stay_below_the_length_limit() -> Result<()> {
    for (name, text) in product_files()? {
        let lines = text.lines().count();
        assert!(lines <= 500, "{name} has {lines} lines: split it");
    }
    Ok(())
}

/// A doc comment begins with a noun or a verb, not with a relative clause: "Number of rows", not
/// "How many rows there are".
#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() -> Result<()> {
    let is_doc = |line: &str| line.starts_with("///") || line.starts_with("//!");
    let (mut comments, mut clauses) = (0, Vec::new());
    for (name, text) in sources("src")? {
        let mut was_doc = false;
        for (at, line) in text.lines().map(str::trim_start).enumerate() {
            let begins = is_doc(line) && !was_doc;
            was_doc = is_doc(line);
            if !begins {
                continue;
            }
            comments += 1;
            let word = line[3..].split_whitespace().next().unwrap_or_default();
            if CLAUSE_WORDS.contains(&word) {
                clauses.push(format!("{name}:{}: {line}", at + 1));
            }
        }
    }
    assert!(comments > 1000, "{comments} doc comments");
    assert!(
        clauses.len() * 100 <= comments * CLAUSES_PERCENT_MAX,
        "{} of {comments} doc comments begin with a relative clause: {clauses:#?}",
        clauses.len()
    );
    Ok(())
}

/// Modules that compute with external numbers.
const CHECKED_ARITHMETIC: [&str; 19] = [
    "src/client/account.rs",
    "src/client/accounts.rs",
    "src/client/held.rs",
    "src/codec/decode.rs",
    "src/codec/event_ref/mod.rs",
    "src/codec/fields.rs",
    "src/codec/read.rs",
    "src/codec/value.rs",
    "src/config/units.rs",
    "src/load/scan/frame.rs",
    "src/load/scan/mod.rs",
    "src/market/rules.rs",
    "src/market/time.rs",
    "src/server/publish_body.rs",
    "src/source/push/mod.rs",
    "src/replay/metered.rs",
    "src/replay/row.rs",
    "src/replay/times.rs",
    "src/source/sim/hours.rs",
];

#[test]
fn arithmetic_on_external_numbers_is_checked() -> Result<()> {
    let found = sources("src")?;
    for name in CHECKED_ARITHMETIC {
        let text = found.iter().find(|(found, _)| found == name);
        let (_, text) = text.with_context(|| format!("{name} is missing"))?;
        assert!(
            text.contains("#![deny(clippy::arithmetic_side_effects)]"),
            "{name} does not deny unchecked arithmetic"
        );
    }
    Ok(())
}

#[test]
fn time_is_read_in_one_place() -> Result<()> {
    for (name, text) in sources("src")?
        .iter()
        .filter(|(name, _)| name != "src/clock.rs")
    {
        for word in ["Instant::now", "SystemTime::now"] {
            assert!(
                !product(text).contains(word),
                "{name} reads the time with {word}; use crate::clock"
            );
        }
    }
    Ok(())
}
