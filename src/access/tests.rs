use std::sync::Arc;

use super::{InstrumentList, Principal, Visible};
use crate::log::{Catalog, SourceId, TopicId};
use crate::market::{Instrument, SourceKind, Symbol};
use crate::topic::TopicName;

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
            .map(|info| info.instrument.symbol.to_string())
            .collect();
        symbols.push(part);
    }
    assert_eq!(symbols, [vec!["A", "B", "C"], vec!["X"]]);
}
