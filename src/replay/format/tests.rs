use super::super::Columns;
use super::super::record::{Line, Lines};
use super::super::row::{Row, RowBody};
use super::symbol::binance_symbol;
use super::*;
use crate::market::UnixNanos;
use proptest::prelude::*;

/// Parsed rows of a text.
fn rows(
    text: &str,
    name: &str,
    columns: Option<&Columns>,
) -> Result<Vec<Result<Row, RowFault>>, FormatError> {
    let config = ReplayConfig {
        columns: columns.cloned(),
        ..ReplayConfig::of(Vec::new())
    };
    let mut format = Format::detect(text, name, &config)?;
    let (mut lines, mut cells) = (Lines::new(text.as_bytes()), Cells::default());
    let mut rows = Vec::new();
    if format.header.is_some() {
        let _header = lines.next();
    }
    while let Ok(Some(Line::Whole)) = lines.next() {
        rows.push(read_line(&mut format, &mut cells, lines.line()));
    }
    Ok(rows)
}

/// The first row of a text: price and aggressor of a trade, both prices of a quote.
fn first(text: &str, name: &str) -> (String, String) {
    let rows = rows(text, name, None).expect("supported format");
    match &rows[0].as_ref().expect("valid row").body {
        RowBody::Trade(trade) => (trade.px.0.to_string(), trade.side.name().to_owned()),
        RowBody::Quote(quote) => {
            let price = |level: Option<crate::market::Level>| {
                level.map_or("-".to_owned(), |level| level.px.0.to_string())
            };
            (price(quote.bid), price(quote.ask))
        }
    }
}

#[test]
fn symbols_are_parsed_from_binance_file_names() {
    for (name, symbol) in [
        ("BTCUSDT-trades-2024-08-08.zip", "BTCUSDT"),
        ("derived_usdm_BTCUSDT-trades-2024-08-08.csv.gz", "BTCUSDT"),
        ("BTCUSD_PERP-aggTrades-2024-08.csv", "BTCUSD_PERP"),
        ("BTCUSD_240927-trades-2024-08.csv", "BTCUSD_240927"),
        ("cm_BTCUSD_240927-trades-2024-08.csv", "BTCUSD_240927"),
    ] {
        assert_eq!(binance_symbol(name).as_deref(), Some(symbol));
    }
    assert_eq!(binance_symbol("trades.csv"), None);
    let config = ReplayConfig::of(Vec::new());
    assert!(
        symbol_of("trades.csv", &config).is_err_and(|error| error.to_string().contains("--symbol"))
    );
    let long = format!("{}-trades-2024-08-08.csv", "X".repeat(90));
    assert!(
        symbol_of(&long, &config)
            .is_err_and(|error| error.to_string().contains("file name: symbol"))
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn every_supported_format_is_detected() {
    let name = "BTCUSDT-x-2024-08-08.csv";
    for (what, text, one, two) in [
        (
            "spot trades",
            "1,5.10,2,9,1723161255342,True,True\n",
            "5.10",
            "sell",
        ),
        (
            "futures trades",
            "1,5.10,2,9,1723161255342,false\n",
            "5.10",
            "buy",
        ),
        (
            "futures trades with a header",
            "id,price,qty,quote_qty,time,is_buyer_maker\n1,5.10,2,9,1723161255342,true\n",
            "5.10",
            "sell",
        ),
        (
            "coin-margined trades with a header",
            "id,price,qty,base_qty,time,is_buyer_maker\n1,5.10,2,9,1723161255342,true\n",
            "5.10",
            "sell",
        ),
        (
            "spot aggTrades",
            "1,5.10,2,8,9,1723161255342,False,True\n",
            "5.10",
            "buy",
        ),
        (
            "futures aggTrades",
            "1,5.10,2,8,9,1723161255342,true\n",
            "5.10",
            "sell",
        ),
        (
            "futures aggTrades with a header",
            "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n1,5.10,2,8,9,1723161255342,true\n",
            "5.10",
            "sell",
        ),
        (
            "bookTicker",
            "1,5.10,2,5.20,3,1723161255342,1723161255342\n",
            "5.10",
            "5.20",
        ),
        (
            "bookTicker with a header",
            "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n1,5.10,2,5.20,3,1723161255342,1723161255342\n",
            "5.10",
            "5.20",
        ),
    ] {
        assert_eq!(first(text, name), (one.into(), two.into()), "{what}");
    }
    for (what, header, row, one, two) in [
        ("trades", TARDIS_TRADES, "i,unknown,5.10,2", "5.10", "none"),
        ("quotes", TARDIS_QUOTES, "3,5.20,5.10,2", "5.10", "5.20"),
        ("an empty side", TARDIS_QUOTES, "3,,5.10,2", "5.10", "-"),
        (
            "book_snapshot",
            TARDIS_BOOK,
            "5.20,3,5.10,2",
            "5.10",
            "5.20",
        ),
    ] {
        let text = format!("{header}\nx,A,1723161255342000,1,{row}\n");
        assert_eq!(first(&text, "t.csv"), (one.into(), two.into()), "{what}");
    }
    let unknown = rows("a,b\n1,2\n", "f.csv", None);
    assert!(unknown.is_err_and(|error| error.to_string().contains("unknown file format")));
}

#[test]
fn times_in_binance_files_are_parsed_in_their_unit() {
    // Spot files have microseconds since 2025.
    for time in ["1723161255342", "1723161255342000"] {
        let text = format!("1,5.10,2,9,{time},True,True\n");
        let rows = rows(&text, "A-trades-2025-01-01.csv", None).expect("supported format");
        let row = rows[0].as_ref().expect("valid row");
        assert_eq!(row.ts(), UnixNanos(1_723_161_255_342_000_000));
    }
}

#[test]
fn columns_are_mapped_by_name_or_number() {
    let named = Columns {
        time: "t".into(),
        symbol: Some("s".into()),
        price: Some("p, in USD".into()),
        qty: Some("q".into()),
        ..Columns::default()
    };
    // The comma of a quoted header belongs to its name, whatever separates the columns.
    for text in [
        "q,s,t,\"p, in USD\"\n1,A,1723161255,2.50\n0,A,1723161255,2.50\n",
        "q;s;t;\"p, in USD\"\n1;A;1723161255;2.50\n0;A;1723161255;2.50\n",
        "q\ts\tt\tp, in USD\n1\tA\t1723161255\t2.50\n0\tA\t1723161255\t2.50\n",
    ] {
        let rows = rows(text, "f.csv", Some(&named)).expect("named columns");
        let skips: Vec<Option<Skip>> = rows
            .iter()
            .map(|row| row.as_ref().err().map(|fault| fault.skip))
            .collect();
        assert_eq!(skips, [None, Some(Skip::ZeroQuantity)], "{text}");
    }
    let numbered = Columns {
        time: "3".into(),
        symbol: Some("2".into()),
        price: Some("4".into()),
        qty: Some("1".into()),
        ..Columns::default()
    };
    for text in ["1,A,1723161255,2.50\n", "q,s,t,p\n1,A,1723161255,2.50\n"] {
        let rows = rows(text, "f.csv", Some(&numbered)).expect("numbered columns");
        assert!(rows.len() == 1 && rows[0].is_ok(), "{rows:?}");
    }
    let time = |time: &str| Columns {
        time: time.into(),
        ..named.clone()
    };
    for (text, columns, error) in [
        ("q,s,t,\"p, in USD\"\n", time("time"), "no column \"time\""),
        ("1,A,1723161255,2.50\n", time("1"), "no column"),
        (
            "q,s,t,p\n",
            Columns {
                time: "9".into(),
                ..numbered.clone()
            },
            "no column 9",
        ),
        ("\"q,s,t,p\n", named.clone(), "no closing quote"),
        (
            "q,s,t,\"p, in USD\"\n",
            Columns {
                price: None,
                ..named.clone()
            },
            "both `price` and `qty`",
        ),
    ] {
        let found = rows(text, "f.csv", Some(&columns)).expect_err(error);
        assert!(found.to_string().contains(error), "{found}");
    }
}

proptest! {
    #[test]
    fn arbitrary_lines_never_panic(text in "[ -~\n]{0,300}", other in "\\PC{0,100}") {
        let columns = Columns {
            time: "1".into(),
            symbol: Some("2".into()),
            bid: Some("3".into()),
            ..Columns::default()
        };
        for text in [text, other] {
            let _known_form = rows(&text, "A-trades-2024-01-01.csv", None);
            let _tardis = rows(&format!("{TARDIS_TRADES}\n{text}"), "t.csv", None);
            let _numbered = rows(&text, "t.csv", Some(&columns));
        }
    }

    #[test]
    fn written_trades_are_parsed_back(px in 1u64..1_000_000_000, qty in 1u64..1_000_000, ms in 100_000_000_000u64..4_000_000_000_000) {
        let line = format!("7,{}.{:02},{qty},1,{ms},true\n", px / 100, px % 100);
        let rows = rows(&line, "A-trades-2024-01-01.csv", None).expect("futures trades");
        let RowBody::Trade(trade) = &rows[0].as_ref().expect("valid row").body else {
            return Err(TestCaseError::fail("a trade"));
        };
        prop_assert_eq!(trade.px.0, rust_decimal::Decimal::new(px as i64, 2));
        prop_assert_eq!(trade.ts.0, ms * 1_000_000);
    }
}
