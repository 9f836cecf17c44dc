use std::sync::Arc;

use super::{
    ChannelSet, InstrumentList, Principal, Role, SymbolRule, SymbolSet, TopicRule, Visible,
};
use crate::log::{Catalog, SourceId, TopicId};
use crate::market::{Instrument, SourceKind, Symbol};
use crate::protocol::{Mode, Settings};
use crate::topic::{Channel, TopicName};

fn catalog(symbols: &[&str]) -> Catalog {
    let mut catalog = Catalog::new(vec!["sim".into()]);
    let instrument = |symbol: &&str| {
        let symbol = Symbol::new(symbol).expect("a symbol");
        Instrument::new(symbol, SourceKind::Sim)
    };
    catalog.add(SourceId(0), symbols.iter().map(instrument).collect());
    catalog
}

fn name(text: &str) -> TopicName {
    TopicName::parse(text).expect("a name")
}

fn matched(visible: Visible<'_>, pattern: &str) -> Vec<String> {
    let resolved = visible.resolve(name(pattern)).expect("a pattern");
    let topics = resolved.topics(visible);
    let texts = topics.iter().map(|id| visible.topic(id).text.to_string());
    texts.collect()
}

#[test]
fn a_removed_instrument_is_not_visible() {
    let mut catalog = catalog(&["AB", "AC", "B"]);
    let symbol = Symbol::new("AC").expect("a symbol");
    let gone = catalog.of_symbol(&symbol).expect("an instrument");
    let topics = catalog.instrument(gone).topics;
    let topic = topics.into_iter().flatten().next().expect("a topic");
    assert!(Visible::new(&catalog, &Principal::Everyone).shows(topic));
    catalog.remove(&[gone]);
    let visible = Visible::new(&catalog, &Principal::Everyone);
    assert!(!visible.shows(topic) && visible.shows(TopicId(0)));
    assert!(visible.resolve(name("quote:AC")).is_err());
    assert_eq!(matched(visible, "quote:A*"), ["quote:AB"]);
    assert_eq!(visible.instruments(), 2);
    let mut list = InstrumentList::new(Arc::new(catalog.clone()), &Principal::Everyone, "A*");
    assert_eq!(list.take(9).len(), 1);
}

#[test]
fn a_refusal_suggests_a_visible_topic() {
    let mut catalog = catalog(&["BTC-USD", "ETH-USD"]);
    let refused = |catalog: &Catalog| {
        let visible = Visible::new(catalog, &Principal::Everyone);
        let refused = visible.resolve(name("quote:btc-usd")).err();
        refused.map(|refused| refused.refusal("quote:btc-usd").message)
    };
    let suggestion = "unknown topic; did you mean quote:BTC-USD?";
    assert_eq!(refused(&catalog).as_deref(), Some(suggestion));
    let ids = catalog.of_source(SourceId(0));
    catalog.remove(&ids);
    assert_eq!(refused(&catalog).as_deref(), Some("unknown topic"));
}

#[test]
fn a_list_of_instruments_is_read_in_parts() {
    let catalog = Arc::new(catalog(&["C", "A", "B", "X"]));
    let mut list = InstrumentList::new(catalog, &Principal::Everyone, "*");
    let mut symbols = Vec::new();
    while !list.is_empty() {
        let part: Vec<_> = list
            .take(3)
            .into_iter()
            .map(|info| info.instrument.symbol.to_string())
            .collect();
        symbols.push(part);
    }
    assert_eq!(symbols, [vec!["A", "B", "C"], vec!["X"]]);
}

/// Client with the only role of a rule list.
fn client(rules: &[&str], channels: ChannelSet, min_interval_ms: Option<u16>) -> Principal {
    let rules: Vec<TopicRule> = rules
        .iter()
        .map(|rule| TopicRule::parse(rule).expect("a rule"))
        .collect();
    let role = Role::new("public", &rules, channels, min_interval_ms);
    Principal::authenticated("key", &Arc::new(role))
}

fn refused(catalog: &Catalog, principal: &Principal, text: &str) -> (u16, String) {
    let resolved = Visible::new(catalog, principal).resolve(name(text));
    let refusal = resolved.expect_err("refused").refusal(text);
    (refusal.code, refusal.message)
}

#[test]
fn a_role_sees_what_its_rules_name_in_lists_patterns_and_names() {
    let catalog = Arc::new(catalog(&["AB", "AC", "B", "BC", "C"]));
    let principal = client(&["quote:A*", "*:BC", "bar:C:1m"], ChannelSet::ALL, None);
    let visible = Visible::new(&catalog, &principal);
    assert_eq!(
        matched(visible, "quote:*"),
        ["quote:AB", "quote:AC", "quote:BC"]
    );
    assert_eq!(matched(visible, "quote:AB*"), ["quote:AB"]);
    assert_eq!(matched(visible, "trade:*"), ["trade:BC"]);
    assert_eq!(matched(visible, "bar:*:1m"), ["bar:BC:1m", "bar:C:1m"]);
    assert_eq!(visible.instruments(), 4);
    let mut list = InstrumentList::new(Arc::clone(&catalog), &principal, "*");
    let listed = list.take(9).into_iter().map(|one| {
        let own = one.instrument.channels().into_iter();
        let channels = own.filter(|channel| one.channels.has(*channel)).count();
        (one.instrument.symbol.to_string(), channels)
    });
    let listed: Vec<(String, usize)> = listed.collect();
    let expected = [("AB", 1), ("AC", 1), ("BC", 9), ("C", 1)];
    assert_eq!(
        listed,
        expected.map(|(symbol, count)| (symbol.to_owned(), count))
    );
    for pattern in ["B", "B*", "X*"] {
        let mut list = InstrumentList::new(Arc::clone(&catalog), &principal, pattern);
        let symbols: Vec<_> = list
            .take(9)
            .iter()
            .map(|one| one.instrument.symbol.to_string())
            .collect();
        assert_eq!(
            symbols,
            if pattern == "B*" { vec!["BC"] } else { vec![] },
            "{pattern}"
        );
    }
}

#[test]
fn an_existing_topic_that_is_not_granted_is_refused_like_one_that_does_not_exist() {
    let catalog = catalog(&["AB", "SECRET"]);
    let principal = client(&["quote:A*", "ticker:*"], ChannelSet::ALL, None);
    let rule = "not entitled: role \"public\" allows quote:A*, ticker:*";
    let expected = (409, rule.to_owned());
    for text in [
        "quote:SECRET",
        "quote:SECREX",
        "quote:S*",
        "trade:AB",
        "trade:*",
    ] {
        assert_eq!(refused(&catalog, &principal, text), expected, "{text}");
    }
    let unknown = |text: &str| refused(&catalog, &principal, text);
    let nearest = "unknown topic; did you mean quote:AB?".to_owned();
    assert_eq!(unknown("quote:AX"), (412, nearest));
    // The rule grants tickers of any symbol, so it is no secret.
    let nearest = "unknown topic; did you mean ticker:SECRET?".to_owned();
    assert_eq!(unknown("ticker:SECREX"), (412, nearest));
    let few = client(&["quote:SEA*", "quote:AB"], ChannelSet::ALL, None);
    let message = "unknown topic; did you mean quote:AB?".to_owned();
    assert_eq!(refused(&catalog, &few, "quote:SEAX"), (412, message));
}

#[test]
fn a_minimum_interval_excludes_other_modes_and_channels_without_conflation() {
    let catalog = catalog(&["A"]);
    let principal = client(&["*"], ChannelSet::ALL, Some(250));
    let visible = Visible::new(&catalog, &principal);
    let rule = "not entitled: role \"public\" allows * with mode interval of at least 250 ms";
    assert_eq!(
        refused(&catalog, &principal, "trade:A"),
        (409, rule.to_owned())
    );
    let modes = [
        Mode::Raw,
        Mode::Conflate,
        Mode::Interval(100),
        Mode::Interval(250),
        Mode::Interval(500),
    ];
    let allowed = modes.map(|mode| visible.check_mode(mode).is_ok());
    assert_eq!(allowed, [false, false, false, true, true]);
    let default = visible.default_settings(Channel::Quote);
    assert_eq!(default.mode, Mode::Interval(250));
    let everyone = Visible::new(&catalog, &Principal::Everyone);
    assert_eq!(
        everyone.default_settings(Channel::Quote),
        Settings::default_of(Channel::Quote)
    );
}

#[test]
fn rights_are_separate() {
    let mut role = Role::new("feed", &[], ChannelSet::ALL, None);
    let symbols = ["A", "B*"].map(|text| SymbolRule::parse(text).expect("a rule"));
    role.publish = vec![("in".into(), SymbolSet::new(symbols.to_vec()))];
    let publisher = Principal::authenticated("key", &Arc::new(role.clone()));
    assert!(publisher.may_publish("in", "A") && publisher.may_publish("in", "BX"));
    assert!(!publisher.may_publish("in", "AX") && !publisher.may_publish("out", "A"));
    assert!(!publisher.may_administer() && !publisher.may_read_metrics());
    assert_eq!(Visible::new(&catalog(&["A"]), &publisher).instruments(), 0);
    role.may_read_metrics = true;
    let monitor = Principal::authenticated("key", &Arc::new(role));
    assert!(monitor.may_read_metrics() && !monitor.may_administer());
    assert!(Principal::Everyone.may_administer() && Principal::Everyone.may_publish("in", "Z"));
}
