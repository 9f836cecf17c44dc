//! `INDEX.md` names the tests of each promise. Rows and sources are compared in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use tickcast::config::keys;
use tickcast::protocol::{Code, GapCause};

use crate::layers::{product_files, sources};

const INDEX: &str = include_str!("INDEX.md");
const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// Numbers of the threats that the server has to withstand. The others belong to features that it
/// does not have: recording (36), live venues (44, 45) and several servers (49 to
/// 51, 53). `SECURITY.md` names them.
const THREATS: [&str; 59] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17",
    "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "33",
    "34", "35", "37", "38", "39", "40", "41", "42", "43", "46", "47", "48", "52", "54", "55", "56",
    "57", "58", "59", "60", "61", "62", "63", "64", "65", "66",
];

/// Rows of a section of the index, as cells without the header.
fn rows(section: &str) -> Result<Vec<Vec<&'static str>>> {
    let heading = format!("\n## {section}\n");
    let (_, text) = INDEX
        .split_once(&heading)
        .with_context(|| format!("INDEX.md has no section {section}"))?;
    let text = text.split("\n## ").next().unwrap_or_default();
    let table = text.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = table.map(|line| line.trim_matches(['|', ' ']).split(" | ").collect());
    Ok(cells.collect())
}

/// First cells of a section, without backticks.
fn first_cells(section: &str, cell: usize) -> Result<BTreeSet<String>> {
    let cells = rows(section)?.into_iter();
    Ok(cells.map(|row| row[cell].replace('`', "")).collect())
}

/// Compares in both directions: each expected key has a row, and each row has an expected key.
fn compare(section: &str, cell: usize, expected: &BTreeSet<String>) -> Result<()> {
    let indexed = first_cells(section, cell)?;
    let missing: Vec<_> = expected.difference(&indexed).collect();
    let unknown: Vec<_> = indexed.difference(expected).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "INDEX.md, {section}: missing rows {missing:?}; unknown rows {unknown:?}"
    );
    Ok(())
}

/// Rules of the protocol reference with their sections: table rows by their first cell, paragraphs
/// and list items by their text. Short lines that introduce a list are not rules.
fn rules() -> Vec<(&'static str, String)> {
    let mut rules: Vec<(&str, String)> = Vec::new();
    let (mut section, mut is_open, mut table_rows) = ("", false, 0);
    for line in PROTOCOL.lines().map(str::trim_end) {
        let is_row = line.starts_with('|');
        table_rows = if is_row { table_rows + 1 } else { 0 };
        if line.is_empty() {
            is_open = false;
        } else if let Some(heading) = line.strip_prefix('#') {
            section = heading.trim_start_matches(['#', ' ']);
            is_open = false;
        } else if is_row {
            if table_rows > 2 {
                let first = line.split('|').nth(1).unwrap_or_default().trim();
                rules.push((section, first.to_owned()));
            }
        } else {
            let item = line.strip_prefix("- ").or_else(|| {
                let (number, item) = line.split_once(". ")?;
                number.parse::<u32>().ok().map(|_| item)
            });
            match (item, rules.last_mut()) {
                (None, Some((_, rule))) if is_open => {
                    rule.push(' ');
                    rule.push_str(line.trim_start());
                }
                _ => rules.push((section, item.unwrap_or(line).to_owned())),
            }
            is_open = true;
        }
    }
    let introduces = |rule: &str| rule.ends_with(':') && rule.len() < 60;
    rules.retain(|(section, rule)| !section.starts_with("tickcast") && !introduces(rule));
    rules
}

#[test]
fn every_rule_of_the_protocol_has_a_row_and_every_row_a_rule() -> Result<()> {
    let rules = rules();
    assert!(rules.len() > 120, "{} rules", rules.len());
    let rows = rows("Protocol")?;
    let is_of = |row: &[&str], (section, rule): &(&str, String)| {
        let begins = row[1].strip_suffix(" …");
        row[0] == *section && begins.map_or(rule == row[1], |start| rule.starts_with(start))
    };
    for rule in &rules {
        let has_row = rows.iter().any(|row| is_of(row, rule));
        assert!(has_row, "INDEX.md has no row for the rule {rule:?}");
    }
    for row in &rows {
        let of = rules.iter().filter(|rule| is_of(row, rule)).count();
        assert_eq!(
            of, 1,
            "docs/protocol.md has {of} rules that begin as {row:?}"
        );
    }
    Ok(())
}

#[test]
fn every_code_and_cause_has_a_row() -> Result<()> {
    let codes = Code::ALL.iter().map(|code| code.number().to_string());
    compare("Error codes", 0, &codes.collect())?;
    let causes = GapCause::ALL.iter().map(|cause| cause.name().to_owned());
    compare("Gap causes", 0, &causes.collect())
}

#[test]
fn every_close_code_has_a_row() -> Result<()> {
    let named = PROTOCOL.split(|letter: char| !letter.is_ascii_digit());
    let is_close =
        |number: &&str| number.len() == 4 && (number.starts_with("44") || number.starts_with("10"));
    let mut expected: BTreeSet<String> = named.filter(is_close).map(str::to_owned).collect();
    // Sizes in events and in bytes.
    expected.remove("1000");
    expected.remove("1024");
    for code in Code::ALL {
        let close = code.close_code().to_string();
        let is_documented = expected.contains(&close);
        let row = format!("| {} | `{}` |", code.number(), code.name());
        let row = PROTOCOL.lines().find(|line| line.starts_with(&row));
        let closes = row.is_some_and(|row| row.contains("close"));
        assert!(
            is_documented || !closes,
            "docs/protocol.md does not contain {close}"
        );
    }
    compare("Close codes", 0, &expected)
}

#[test]
fn every_config_key_has_a_row() -> Result<()> {
    let paths = keys().map(|key| key.path.to_owned());
    compare("Config keys", 0, &paths.collect())
}

#[test]
fn every_threat_has_a_row() -> Result<()> {
    let numbers = THREATS.iter().map(|number| (*number).to_owned());
    compare("Threats", 0, &numbers.collect())
}

/// The routes are the path literals of the two routers.
#[test]
fn every_http_route_has_a_row() -> Result<()> {
    let router = product_files()?
        .into_iter()
        .find(|(name, _)| name == "src/server/http.rs")
        .context("missing router")?
        .1;
    let literals = router.split('"').skip(1).step_by(2);
    let is_path = |text: &&str| {
        text.starts_with('/')
            && text[1..]
                .chars()
                .all(|c| c == '/' || c.is_ascii_lowercase() || c == '1')
    };
    let mut expected: BTreeSet<String> = literals.filter(is_path).map(str::to_owned).collect();
    // Files of the page are served by name.
    expected.insert("/".to_owned());
    assert!(expected.len() >= 10, "{expected:?}");
    compare("HTTP routes", 1, &expected)
}

/// Module paths of all tests, without modules named `tests`.
fn all_tests() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (file, text) in sources("src")?.into_iter().chain(sources("tests")?) {
        let place = [
            "src/",
            "tests/promises/",
            "tests/observability/",
            "tests/attacks/",
        ]
        .iter()
        .find_map(|folder| file.strip_prefix(folder))
        .unwrap_or(&file);
        let module = without_tests(&place.trim_end_matches(".rs").replace('/', "::"));
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
                continue;
            }
            let names = lines[at..].iter().filter_map(|line| line.split_once("fn "));
            if let Some((_, name)) = names.take(1).next() {
                let name = name.split('(').next().unwrap_or_default();
                found.insert(format!("{module}::{name}"), file.clone());
            }
        }
    }
    Ok(found)
}

/// A path without the segments for test modules and for the file of a module itself.
fn without_tests(path: &str) -> String {
    let segments = path.split("::");
    let own: Vec<_> = segments
        .filter(|segment| !["tests", "mod"].contains(segment))
        .collect();
    own.join("::")
}

/// Tests in the last cell of a row.
fn named_tests(row: &str) -> Vec<&str> {
    let last = row.trim_end_matches([' ', '|']).rsplit(" | ").next();
    last.unwrap_or_default()
        .split('`')
        .skip(1)
        .step_by(2)
        .collect()
}

#[test]
fn every_row_of_the_index_names_tests_that_exist() -> Result<()> {
    let tests = all_tests()?;
    let page = page_tests()?;
    let is_row = |line: &&str| line.starts_with("| ") && !line.ends_with("| tests |");
    let rows: Vec<&str> = INDEX.lines().filter(is_row).collect();
    assert!(rows.len() > 400, "{} rows", rows.len());
    for row in rows {
        let named = named_tests(row);
        assert!(!named.is_empty(), "row without a test: {row}");
        for test in named {
            let exists = match test.split_once(": ") {
                Some(("page", title)) => page.contains(title),
                _ => tests.contains_key(&without_tests(test)),
            };
            assert!(exists, "test {test} of this row does not exist: {row}");
        }
    }
    Ok(())
}

/// The other direction: each test over sockets is in the index. Tests of the sources themselves
/// belong to `CONTRIBUTING.md`.
#[test]
fn every_promise_test_is_in_the_index() -> Result<()> {
    let named: BTreeSet<String> = INDEX
        .lines()
        .flat_map(named_tests)
        .map(without_tests)
        .collect();
    let unnamed: Vec<_> = all_tests()?
        .into_iter()
        .filter(|(_, file)| file.starts_with("tests/"))
        .filter(|(_, file)| !file.ends_with("layers.rs") && !file.ends_with("/index.rs"))
        .filter(|(test, _)| !named.contains(test))
        .collect();
    assert!(unnamed.is_empty(), "INDEX.md has no row for {unnamed:#?}");
    Ok(())
}

/// Tests of the page, which a row names as `page: ` and the title.
fn page_tests() -> Result<String> {
    let mut text = String::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page"))? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "mjs") {
            text.push_str(&std::fs::read_to_string(file)?);
        }
    }
    Ok(text)
}

/// Invariants of `ARCHITECTURE.md`: consecutive numbers, existing items, existing tests.
#[test]
fn every_invariant_names_code_and_tests_that_exist() -> Result<()> {
    let code: String = sources("src")?.into_iter().map(|(_, text)| text).collect();
    let tests: String = sources("tests")?
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let page = include_str!("../../ARCHITECTURE.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
        let number = cells.first()?.parse::<usize>().ok()?;
        (cells.len() == 4).then_some((number, cells))
    });
    let mut count = 0;
    for (number, cells) in rows {
        count += 1;
        assert_eq!(number, count, "the invariants are numbered from 1");
        let names = |cell: &str| -> Vec<String> {
            let quoted = cell.split('`').skip(1).step_by(2);
            let last = |name: &str| name.rsplit("::").next().unwrap_or(name).to_owned();
            quoted.map(last).collect()
        };
        let (held_by, tested_by) = (names(cells[2]), names(cells[3]));
        assert!(!held_by.is_empty() && !tested_by.is_empty(), "{cells:?}");
        for name in held_by {
            let is_item = ["struct ", "enum ", "fn ", "mod "]
                .iter()
                .any(|kind| code.contains(&format!("{kind}{name}")));
            assert!(
                is_item,
                "invariant {number} is held by {name}, which does not exist in src"
            );
        }
        for name in tested_by {
            let is_test = [&code, &tests]
                .iter()
                .any(|text| text.contains(&format!("fn {name}(")));
            assert!(
                is_test,
                "invariant {number} is tested by {name}, which does not exist"
            );
        }
    }
    assert!(count >= 13, "{count} invariants");
    Ok(())
}
