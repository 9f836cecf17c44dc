//! Imports between the files of one module form no cycle.
//!
//! For each folder of `src`, its children are the nodes: a file, or a folder with its contents. A
//! use of an item of another child, by import or path, is an edge. An item that a `mod.rs`
//! re-exports belongs to the file that defines it.
//!
//! A `mod.rs` is not a node of its own folder. It declares and wires its children, and they extend
//! its types: one unit in several files, so uses in both directions are not edges.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::layers::product_files;

/// Re-exports that are followed to find the file that defines an item.
const REEXPORTS_MAX: usize = 8;

type Path = Vec<String>;

/// The files by their module paths.
#[derive(Default)]
struct Tree(BTreeMap<Path, File>);

struct File {
    /// Paths of `use` declarations, from the root of the crate.
    imports: Vec<Path>,
    /// All paths in the file, from the root of the crate.
    paths: BTreeSet<Path>,
}

fn split(path: &str) -> Path {
    path.split("::")
        .map(|part| part.trim().to_owned())
        .collect()
}

/// The module path of a file, such as `log::ring` for `src/log/ring.rs`.
fn module_of(name: &str) -> Path {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The paths of a use tree such as `a::{b, c::{self, d as e}}`.
fn expand(prefix: &[String], tree: &str, into: &mut Vec<Path>) {
    let (mut depth, mut begin) = (0, 0);
    let mut branches = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(&tree[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[begin..]);
    for branch in branches.into_iter().map(str::trim) {
        let end_of_group = branch.rfind('}').unwrap_or(branch.len());
        if let Some(group) = branch.find('{') {
            let mut prefix = prefix.to_vec();
            prefix.extend(split(branch[..group].trim_end().trim_end_matches("::")));
            expand(&prefix, &branch[group + 1..end_of_group], into);
        } else if !branch.is_empty() {
            let path = branch.split(" as ").next().unwrap_or(branch);
            let parts = split(path).into_iter().filter(|part| part != "self");
            into.push(prefix.iter().cloned().chain(parts).collect());
        }
    }
}

/// The tree of a `use` declaration that begins in this line.
fn declared(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub(") {
        Some(scope) => scope.split_once(") ")?.1,
        None => line.strip_prefix("pub ").unwrap_or(line),
    };
    item.strip_prefix("use ")
}

/// Splits the code of a file, comments aside, into the trees of its `use` declarations and the
/// rest.
fn declarations(text: &str) -> (Vec<String>, String) {
    let code = text.lines().map(str::trim_start);
    let code = code.filter(|line| !line.starts_with("//"));
    let (mut trees, mut rest) = (Vec::new(), String::new());
    let mut open: Option<String> = None;
    for line in code {
        let tree = match (open.take(), declared(line)) {
            (Some(begun), _) => begun + " " + line,
            (None, Some(tree)) => tree.to_owned(),
            (None, None) => {
                rest.extend([line, "\n"]);
                continue;
            }
        };
        match tree.split_once(';') {
            Some((whole, _)) => trees.push(whole.to_owned()),
            None => open = Some(tree),
        }
    }
    (trees, rest)
}

impl Tree {
    fn of(files: &[(String, String)]) -> Self {
        let empty = || File {
            imports: Vec::new(),
            paths: BTreeSet::new(),
        };
        let modules = files.iter().map(|(name, _)| (module_of(name), empty()));
        let mut tree = Self(modules.collect());
        for (name, text) in files {
            let module = module_of(name);
            let (trees, rest) = declarations(text);
            let mut imports = Vec::new();
            for declared in &trees {
                expand(&[], declared, &mut imports);
            }
            let is_path = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
            let named = rest.split(|letter| !is_path(letter));
            let named = named.filter(|word| word.contains("::")).map(split);
            let from_root = |path: &Path| tree.seen_from_root(&module, path);
            let imports: Vec<Path> = imports.iter().filter_map(from_root).collect();
            let mut paths: BTreeSet<Path> = imports.iter().cloned().collect();
            paths.extend(named.filter_map(|path| from_root(&path)));
            tree.0.insert(module, File { imports, paths });
        }
        tree
    }

    /// Path from the root of the crate; `None` for paths of other crates.
    fn seen_from_root(&self, module: &[String], path: &[String]) -> Option<Path> {
        let ups = path.iter().take_while(|part| *part == "super").count();
        let rest = &path[ups..];
        if ups > 0 {
            let base = &module[..module.len().checked_sub(ups)?];
            return Some([base, rest].concat());
        }
        let child = [module, &path[..1]].concat();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            _ => self.0.contains_key(&child).then(|| [module, path].concat()),
        }
    }

    /// Module of the file that defines the item of a path.
    fn definer(&self, path: &[String]) -> Option<Path> {
        let mut path = path.to_vec();
        for _ in 0..REEXPORTS_MAX {
            let len = (1..=path.len()).rev();
            let len = len
                .into_iter()
                .find(|len| self.0.contains_key(&path[..*len]))?;
            let (module, rest) = path.split_at(len);
            let item = rest.first();
            let imports = &self.0[module].imports;
            let reexport = imports.iter().find(|import| import.last() == item);
            let Some(reexport) = reexport.filter(|_| item.is_some()) else {
                return Some(module.to_vec());
            };
            path = [reexport, &rest[1..]].concat();
        }
        None
    }

    /// By folder and child: the children that it uses.
    fn edges(&self) -> BTreeMap<Path, BTreeMap<String, BTreeSet<String>>> {
        let mut edges: BTreeMap<Path, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (user, file) in &self.0 {
            for used in file.paths.iter().filter_map(|path| self.definer(path)) {
                let shared = user.iter().zip(&used).take_while(|(a, b)| a == b).count();
                // One is the parent of the other, or they share no folder.
                if shared == 0 || shared == user.len() || shared == used.len() {
                    continue;
                }
                let folder = edges.entry(user[..shared].to_vec()).or_default();
                let children = folder.entry(user[shared].clone()).or_default();
                children.insert(used[shared].clone());
            }
        }
        edges
    }

    /// First cycle of each folder, as a list of children.
    fn cycles(&self) -> Vec<String> {
        let mut cycles = Vec::new();
        for (folder, children) in self.edges() {
            let folder = folder.join("::");
            let uses = |child: &str| {
                let used = children.get(child).into_iter().flatten();
                used.cloned().collect::<Vec<String>>()
            };
            let found = children.keys().find_map(|child| {
                let mut way = vec![child.clone()];
                returns(&uses, child, &mut way, &mut BTreeSet::new()).then_some(way)
            });
            cycles.extend(found.map(|way| format!("{folder}: {}", way.join(" -> "))));
        }
        cycles
    }
}

/// Follows the uses of the last child on the path; true if one leads back to `start`.
fn returns(
    uses: &impl Fn(&str) -> Vec<String>,
    start: &str,
    way: &mut Vec<String>,
    seen: &mut BTreeSet<String>,
) -> bool {
    let last = way.last().cloned().unwrap_or_default();
    for used in uses(&last) {
        let is_new = seen.insert(used.clone());
        way.push(used.clone());
        if used == start || (is_new && returns(uses, start, way, seen)) {
            return true;
        }
        way.pop();
    }
    false
}

#[test]
fn no_import_cycle_between_the_files_of_a_module() -> Result<()> {
    let tree = Tree::of(&product_files()?);
    let edges = tree.edges();
    let uses: usize = edges
        .values()
        .flat_map(BTreeMap::values)
        .map(BTreeSet::len)
        .sum();
    ensure!(uses > 200, "only {uses} uses between files were found");
    let cycles = tree.cycles();
    ensure!(cycles.is_empty(), "import cycles: {cycles:#?}");
    Ok(())
}

#[test]
fn cycles_through_imports_paths_folders_and_reexports_are_found() {
    let cycles = |files: &[(&str, &str)]| {
        let files = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Tree::of(&files.collect::<Vec<_>>()).cycles()
    };
    let found = ["m: a -> b -> a"];
    let used_by_b = "use super::a::A;\npub struct B(A);\n";
    for a in [
        "use super::b::B;",
        "pub(super) use crate::m::{\n    b::{self, B as Other},\n};",
        "fn f() { super::b::g(); }",
        "use super::B;",
    ] {
        let parent = ("src/m/mod.rs", "mod a;\nmod b;\npub use b::B;\n");
        assert_eq!(
            cycles(&[parent, ("src/m/a.rs", a), ("src/m/b.rs", used_by_b)]),
            found,
            "{a}"
        );
        let nested = ("src/m/b/inner.rs", "use crate::m::a::A;");
        let files = [
            parent,
            ("src/m/a.rs", a),
            ("src/m/b/mod.rs", "mod inner;"),
            nested,
        ];
        assert_eq!(cycles(&files), found, "{a}, of a folder");
    }
    let parent = (
        "src/m/mod.rs",
        "mod a;\nmod b;\nuse a::A;\npub struct M(A);\n",
    );
    let none: [&str; 0] = [];
    let files = [
        parent,
        ("src/m/a.rs", "use super::M;\n// super::b::B\n"),
        ("src/m/b.rs", used_by_b),
    ];
    assert_eq!(
        cycles(&files),
        none,
        "a module file and its children are one unit"
    );
}
