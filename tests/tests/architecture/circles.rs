//! No circle between the files of a package.
//!
//! A file knows another one of its package if it names something that is defined there: by `use`, or
//! by a path in code. What does not count:
//!
//! * `mod` lines, and names of modules by themselves;
//! * re-exports (`pub use child::..`) of what lies below the module, unless the module uses the name
//!   itself;
//! * code that is compiled for tests alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::files::root;
use crate::modules::{Kind, Modules};
use crate::{PACKAGES, check};

/// Of each file, the files that it knows, with a line and a name as a witness of each.
type Graph = BTreeMap<PathBuf, BTreeMap<PathBuf, (usize, String)>>;

fn graph(modules: &Modules, package: &str) -> Graph {
    let mut graph = Graph::new();
    for it in modules.mentions(package) {
        if it.path.first().is_none_or(|it| it != package) {
            continue;
        }
        if modules.is_module(&it.path) && it.kind != Kind::Glob {
            continue;
        }
        let Some((file, path)) = modules.home(&it.path) else {
            continue;
        };
        let is_below = path.starts_with(&it.module);
        if file == it.file || path[0] != package || it.kind == Kind::ReExport && is_below {
            continue;
        }
        let witness = (it.line, it.path.join("::"));
        let known = graph.entry(it.file).or_default();
        known.entry(file.to_owned()).or_insert(witness);
    }
    graph
}

/// The shortest way along the graph from a file back to itself.
fn circle(graph: &Graph, begin: &Path) -> Option<Vec<PathBuf>> {
    let mut ways = vec![vec![begin.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for file in graph
                .get(&way[way.len() - 1])
                .into_iter()
                .flat_map(BTreeMap::keys)
            {
                if file == begin {
                    return Some(way);
                }
                if seen.insert(file.clone()) {
                    longer.push([&way[..], std::slice::from_ref(file)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

#[test]
fn no_circle_of_files() {
    let modules = Modules::read(root(), PACKAGES);
    let mut violations = Vec::new();
    for (package, _) in PACKAGES {
        let graph = graph(&modules, package);
        for file in graph.keys() {
            let Some(circle) = circle(&graph, file) else {
                continue;
            };
            let mut what = format!("{} is in a circle of files:", file.display());
            for (place, from) in circle.iter().enumerate() {
                let to = &circle[(place + 1) % circle.len()];
                let (line, name) = &graph[from][to];
                what += &format!(
                    "\n  {}:{line} uses {name} of {}",
                    from.display(),
                    to.display()
                );
            }
            what += "\n  Move what both need into a file below both, or pass it as an argument.";
            violations.push(what);
        }
    }
    check(&violations);
}
