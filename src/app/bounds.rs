//! Effective bounds of a server as metrics: the limits of its config and the memory limit of the
//! machine or container.

use std::path::{Path, PathBuf};

use super::App;

impl App {
    /// Publishes the bounds of the current config.
    pub(super) async fn export_bounds(&self) {
        let (_, topics) = self.sizes().await;
        let metrics = &self.server.metrics;
        let (bound, _) = self.config.memory_formula(topics);
        metrics.memory_bound.set(bound as i64);
        metrics
            .connections_limit
            .set(self.config.connections_max as i64);
        let memory = tokio::task::spawn_blocking(|| memory_limit(Path::new("/"))).await;
        let available = memory.ok().flatten().unwrap_or(0);
        let bytes = self.config.memory_max.unwrap_or(available);
        self.server.memory.set_limit(bytes);
        metrics
            .memory_limit
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Memory available to this process: the machine's, or the limit of a control group if lower.
/// `None` if neither can be read.
fn memory_limit(root: &Path) -> Option<u64> {
    let machine = std::fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| machine_memory(&text));
    let group = std::fs::read_to_string(root.join("proc/self/cgroup"))
        .ok()
        .and_then(|text| group_limit(root, &text));
    machine.into_iter().chain(group).min()
}

/// The `MemTotal` of `/proc/meminfo`, in bytes.
fn machine_memory(meminfo: &str) -> Option<u64> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Lowest memory limit of the process's control group and its ancestors, for cgroup version 2 or 1.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (top, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|one| one == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        smallest(&root.join(top), Path::new(path), file)
    });
    limits.min()
}

/// Lowest number in the files of this name, from a directory up to the root. `max` is not a number.
fn smallest(top: &Path, path: &Path, file: &str) -> Option<u64> {
    let inside: PathBuf = path.strip_prefix("/").unwrap_or(path).into();
    let folders = inside.ancestors().map(|folder| top.join(folder));
    let limits = folders.filter_map(|folder| {
        let text = std::fs::read_to_string(folder.join(file)).ok()?;
        text.trim().parse().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       24109152 kB\nMemFree:         1234 kB\n";

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory can be created");
        for (name, text) in files {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().expect("the file has a parent directory"))
                .expect("a directory can be created");
            std::fs::write(file, text).expect("a file can be written");
        }
        root
    }

    #[test]
    fn the_memory_limit_is_the_lowest_of_machine_and_control_groups() {
        let whole = 24_109_152 * 1024;
        for (files, limit) in [
            (&[("proc/meminfo", MEMINFO)][..], Some(whole)),
            (
                &[
                    ("proc/meminfo", MEMINFO),
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "536870912\n"),
                ],
                Some(536_870_912),
            ),
            (
                &[
                    ("proc/meminfo", MEMINFO),
                    ("proc/self/cgroup", "0::/system.slice/tickcast.service\n"),
                    (
                        "sys/fs/cgroup/system.slice/tickcast.service/memory.max",
                        "max\n",
                    ),
                    ("sys/fs/cgroup/system.slice/memory.max", "2147483648\n"),
                ],
                Some(2_147_483_648),
            ),
            (
                &[
                    ("proc/meminfo", MEMINFO),
                    (
                        "proc/self/cgroup",
                        "3:cpu,cpuacct:/docker/a\n2:memory:/docker/a\n",
                    ),
                    (
                        "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes",
                        "1073741824\n",
                    ),
                ],
                Some(1_073_741_824),
            ),
            // In version 1, "unlimited" is a number larger than the memory of any machine.
            (
                &[
                    ("proc/meminfo", MEMINFO),
                    ("proc/self/cgroup", "2:memory:/\n"),
                    (
                        "sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                Some(whole),
            ),
            (&[], None),
        ] {
            let root = machine(files);
            assert_eq!(memory_limit(root.path()), limit, "{files:?}");
        }
    }
}
