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
