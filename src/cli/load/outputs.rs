//! Files of a load test's outcome, opened before the test begins.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::load::{Outcome, write_hgrm, write_hlog, write_html};

/// Output file, or standard output.
struct Output {
    path: PathBuf,
    /// `None`: standard output.
    file: Option<File>,
}

impl Output {
    /// Opens the file without truncating it; the old contents remain until there are new ones.
    fn open(path: &Path) -> Result<Self> {
        let is_stdout = path == Path::new("-");
        let file = (!is_stdout).then(|| {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
        });
        let file = file
            .transpose()
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    fn write(self, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        let written = match self.file {
            None => write(&mut std::io::stdout().lock()),
            Some(file) => file.set_len(0).and_then(|()| {
                let mut out = BufWriter::new(file);
                write(&mut out)?;
                out.flush()
            }),
        };
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Removes a file that is still empty.
    fn discard(self) {
        let is_empty = self
            .file
            .is_some_and(|file| file.metadata().is_ok_and(|data| data.len() == 0));
        if is_empty {
            // An empty file that remains is harmless.
            let _stays = std::fs::remove_file(&self.path);
        }
    }
}

/// Files requested by the arguments.
pub(super) struct Outputs {
    json: Option<Output>,
    hlog: Option<Output>,
    hgrm: Option<Output>,
    report: Option<Output>,
}

impl Outputs {
    /// Opens all files; the error names the first one that cannot be written.
    pub(super) fn open(
        json: Option<&Path>,
        hdr: Option<&Path>,
        report: Option<&Path>,
    ) -> Result<Self> {
        let open = |path: Option<&Path>| path.map(Output::open).transpose();
        let with = |ending: &str| {
            hdr.map(|prefix| PathBuf::from(format!("{}.{ending}", prefix.display())))
        };
        Ok(Self {
            json: open(json)?,
            hlog: open(with("hlog").as_deref())?,
            hgrm: open(with("hgrm").as_deref())?,
            report: open(report)?,
        })
    }

    /// Writes the outcome to each file.
    pub(super) fn write(self, outcome: &Outcome) -> Result<()> {
        if let Some(json) = self.json {
            json.write(|out| {
                serde_json::to_writer_pretty(&mut *out, outcome)?;
                writeln!(out)
            })?;
        }
        if let Some(hlog) = self.hlog {
            hlog.write(|out| write_hlog(outcome, out))?;
        }
        if let Some(hgrm) = self.hgrm {
            hgrm.write(|out| write_hgrm(outcome.latency.end_to_end(), out))?;
        }
        if let Some(report) = self.report {
            report.write(|out| write_html(outcome, out))?;
        }
        Ok(())
    }

    /// Removes the files that were created for a test without an outcome.
    pub(super) fn discard(self) {
        let Self {
            json,
            hlog,
            hgrm,
            report,
        } = self;
        for output in [json, hlog, hgrm, report].into_iter().flatten() {
            output.discard();
        }
    }
}
