//! `INDEX.md` names for each promise the test that holds it; a row whose test doesn't exist fails here.

use anyhow::Result;

use crate::layers::sources;

#[test]
fn every_row_of_the_index_names_a_test_that_exists() -> Result<()> {
    let index = include_str!("INDEX.md");
    let code: String = sources("src")?.into_iter().chain(sources("tests")?).map(|(_, text)| text).collect();
    let rows: Vec<&str> = index.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")).collect();
    assert!(rows.len() > 60, "{} rows", rows.len());
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        for test in tests.split(',').map(|test| test.trim().trim_matches('`')) {
            let name = test.rsplit("::").next().unwrap_or_default();
            assert!(code.contains(&format!("fn {name}(")), "no test {test}, of the row: {row}");
        }
    }
    Ok(())
}
