//! `INDEX.md` names for each promise the test that holds it; a row whose test doesn't exist fails here.

use std::path::Path;

use anyhow::Result;

use crate::layers::sources;

#[test]
fn every_row_of_the_index_names_a_test_that_exists() -> Result<()> {
    let index = include_str!("INDEX.md");
    let code: String = sources("src")?
        .into_iter()
        .chain(sources("tests")?)
        .map(|(_, text)| text)
        .collect();
    let page = page_tests()?;
    let rows: Vec<&str> = index
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| promise"))
        .collect();
    assert!(rows.len() > 60, "{} rows", rows.len());
    for row in rows {
        let tests = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "a row without a test: {row}");
        for test in tests {
            let exists = match test.split_once(": ") {
                Some(("page", title)) => page.contains(title),
                _ => code.contains(&format!(
                    "fn {}(",
                    test.rsplit("::").next().unwrap_or_default()
                )),
            };
            assert!(exists, "no test {test}, of the row: {row}");
        }
    }
    Ok(())
}

/// The tests of the page, of which a row says `page: ` and the title.
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

/// The invariants of `ARCHITECTURE.md`: consecutive numbers, items of the code, and tests that exist.
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
                "invariant {number} is held by {name}, which is not in src"
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
