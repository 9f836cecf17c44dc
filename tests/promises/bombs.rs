//! Files without line ends and decompression bombs are reported as damaged and take bounded memory.

use std::process::Stdio;

use anyhow::Result;

use crate::harness::{DEADLINE, Stopwatch};
use crate::replay::{TARDIS, rows, tardis, write};
use crate::terminal::serve_with;
use crate::values::peak_bytes;

/// More than the bytes that any file may have.
const LONG_BYTES: usize = 70 << 20;

#[test]
fn endless_lines_and_decompression_bombs_take_bounded_memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let start = TARDIS.to_owned() + &tardis("b", "A", 0, "5.0", "1");
    let endless = |of: &str| start.clone() + &of.repeat(LONG_BYTES / of.len());
    let path = folder.path();
    let packed = zstd::encode_all(endless("\n").as_bytes(), 1)?;
    let files = [
        write(path, "a.csv", endless("0"))?,
        write(path, "b.csv.zst", packed)?,
        write(path, "A-trades-2024-08-08.csv", rows(0, 100))?,
    ];
    let log = path.join("log");
    let files = files.map(|file| file.display().to_string());
    let mut arguments = vec!["--speed", "max"];
    arguments.extend(files.iter().flat_map(|file| ["--replay", file]));
    let served = serve_with(&arguments, Stdio::from(std::fs::File::create(&log)?))?;
    let begun = Stopwatch::start();
    let logged = loop {
        let logged = std::fs::read_to_string(&log)?;
        if logged.contains("source failed permanently") {
            break logged;
        }
        anyhow::ensure!(begun.elapsed() < 2 * DEADLINE, "timeout; log: {logged}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    };
    assert!(peak_bytes(served.id())? < 256 << 20);
    served.terminate()?;
    assert!(
        logged.contains("no end of line within 64 MiB") && logged.contains("`max_expansion`"),
        "{logged}"
    );
    assert!(logged.contains("rows=100 trades=100"), "{logged}");
    Ok(())
}
