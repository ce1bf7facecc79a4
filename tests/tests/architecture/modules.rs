//! The modules of the workspace's packages, the paths that each of them names, and where those lead.
//!
//! A path is followed through re-exports to the file that defines what it names, so that a name
//! counts as knowledge of its home and not of the door that it is handed out by.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::tokens::{Located, Token, tokens};

/// How many re-exports a path is followed through.
const HOPS_MAX: usize = 16;

/// A path as it is written somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Mention {
    /// The file, relative to the workspace.
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    /// The module that it stands in.
    pub(crate) module: Vec<String>,
    /// The whole path, beginning with a package.
    pub(crate) path: Vec<String>,
    pub(crate) kind: Kind,
}

/// What a path is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A `use` for the module itself.
    Import,
    /// A `use` of all that a module has.
    Glob,
    /// A `pub use`.
    ReExport,
    /// A name in code.
    Code,
}

/// A module, in a file of its own or inside another one.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// What its `use` lines bind, and to what.
    bindings: BTreeMap<String, Vec<String>>,
    uses: Vec<Use>,
    /// Paths outside of `use`, as they are written.
    paths: Vec<(usize, Vec<String>)>,
}

impl Module {
    fn has(&self, name: &str) -> bool {
        self.items.contains(name)
            || self.children.contains(name)
            || self.bindings.contains_key(name)
    }
}

/// What one leaf of a `use` names.
#[derive(Debug)]
struct Use {
    line: usize,
    path: Vec<String>,
    is_public: bool,
    is_glob: bool,
}

/// All modules of some packages, by their whole path.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    root: PathBuf,
    by_path: BTreeMap<Vec<String>, Module>,
}

impl Modules {
    /// Reads packages, each given by its name and the file of its root module.
    pub(crate) fn read(root: &Path, packages: &[(&str, &str)]) -> Self {
        let mut all = Self {
            root: root.to_owned(),
            by_path: BTreeMap::new(),
        };
        for (name, file) in packages {
            let file = Path::new(file);
            let children = file.parent().expect("it lies in a folder").to_owned();
            all.read_file(vec![(*name).to_owned()], file.to_owned(), &children);
        }
        all.make_absolute();
        all
    }

    /// Every path that a module of a package names, made absolute.
    pub(crate) fn mentions(&self, package: &str) -> Vec<Mention> {
        let mut found = Vec::new();
        for (place, module) in &self.by_path {
            if place[0] != package {
                continue;
            }
            let mention = |line: usize, path: &[String], kind| Mention {
                file: module.file.clone(),
                line,
                module: place.clone(),
                path: path.to_vec(),
                kind,
            };
            for it in &module.uses {
                let kind = match (it.is_public, it.is_glob) {
                    (true, _) => Kind::ReExport,
                    (false, true) => Kind::Glob,
                    (false, false) => Kind::Import,
                };
                found.push(mention(it.line, &it.path, kind));
            }
            for (line, path) in &module.paths {
                found.push(mention(*line, path, Kind::Code));
            }
        }
        found
    }

    /// Whether a path names a module, and nothing in one.
    pub(crate) fn is_module(&self, path: &[String]) -> bool {
        self.by_path.contains_key(path)
    }

    /// The file that defines what a path names, and the whole path of that; `None` for what is not
    /// of these packages.
    pub(crate) fn home(&self, path: &[String]) -> Option<(&Path, Vec<String>)> {
        self.follow(path.to_vec(), HOPS_MAX)
    }

    fn follow(&self, path: Vec<String>, hops: usize) -> Option<(&Path, Vec<String>)> {
        let depth = (1..=path.len())
            .rev()
            .find(|depth| self.by_path.contains_key(&path[..*depth]))?;
        let module = &self.by_path[&path[..depth]];
        let Some(name) = path.get(depth) else {
            return Some((&module.file, path));
        };
        let further = |target: &[String]| [target, &path[depth + 1..]].concat();
        if !module.items.contains(name) && hops > 0 {
            if let Some(target) = module.bindings.get(name) {
                let target = further(target);
                return self
                    .follow(target.clone(), hops - 1)
                    .or(Some((&module.file, target)));
            }
            for glob in module.uses.iter().filter(|it| it.is_glob) {
                let there = self.by_path.get(&glob.path);
                if there.is_some_and(|it| it.has(name)) {
                    let target = [&glob.path[..], &path[depth..]].concat();
                    return self.follow(target, hops - 1);
                }
            }
        }
        Some((&module.file, path))
    }

    fn read_file(&mut self, place: Vec<String>, file: PathBuf, children: &Path) {
        let source = fs::read_to_string(self.root.join(&file));
        let source = source.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens = tokens(&source);
        self.read_module(&place, &file, children, &tokens);
    }

    fn read_module(&mut self, place: &[String], file: &Path, folder: &Path, tokens: &[Located]) {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        let (mut here, mut depth) = (0, 0_usize);
        while here < tokens.len() {
            let it = &tokens[here];
            let next = tokens.get(here + 1);
            match &it.token {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth = depth.saturating_sub(1),
                Token::Name(name) => match (name.as_str(), next.and_then(Located::name)) {
                    ("mod", Some(child)) => {
                        let inner = [place, &[child.to_owned()]].concat();
                        module.children.insert(child.to_owned());
                        let is_inline = tokens.get(here + 2).is_some_and(|it| it.is_mark('{'));
                        if is_inline {
                            let end = after_block(tokens, here + 2);
                            let below = folder.join(child);
                            self.read_module(&inner, file, &below, &tokens[here + 3..end - 1]);
                            here = end;
                        } else {
                            self.read_child(inner, folder, child);
                            here += 2;
                        }
                        continue;
                    }
                    ("use", _) if next.is_some_and(|it| !it.is_mark('<')) => {
                        let end = tokens[here..].iter().position(|it| it.is_mark(';'));
                        let end = here + end.expect("a use ends");
                        let is_public = is_public(&tokens[..here]);
                        let mut leaves = Vec::new();
                        use_tree(&tokens[here + 1..end], &[], &mut leaves);
                        for (line, path, alias) in leaves {
                            let is_glob = alias == "*";
                            if !is_glob {
                                module.bindings.insert(alias, path.clone());
                            }
                            module.uses.push(Use {
                                line,
                                path,
                                is_public,
                                is_glob,
                            });
                        }
                        here = end + 1;
                        continue;
                    }
                    (
                        "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union",
                        Some(item),
                    ) if depth == 0 => {
                        module.items.insert(item.to_owned());
                    }
                    ("macro_rules", _) => {
                        let item = tokens.get(here + 2).and_then(Located::name);
                        module.items.extend(item.map(str::to_owned));
                    }
                    _ => {
                        if !is_inside_path(&tokens[..here]) {
                            module.paths.push((it.line, path_at(tokens, here)));
                        }
                    }
                },
                _ => {}
            }
            here += 1;
        }
        self.by_path.insert(place.to_vec(), module);
    }

    fn read_child(&mut self, place: Vec<String>, folder: &Path, child: &str) {
        let alone = folder.join(format!("{child}.rs"));
        let below = folder.join(child);
        if self.root.join(&alone).exists() {
            self.read_file(place, alone, &below);
        } else {
            self.read_file(place, below.join("mod.rs"), &below);
        }
    }

    /// Makes every path begin with a package.
    fn make_absolute(&mut self) {
        let mut absolutes = Vec::new();
        for (place, module) in &self.by_path {
            let absolute = |path: &[String]| absolute(place, module, path, HOPS_MAX);
            let bindings = module.bindings.iter();
            let bindings = bindings.map(|(name, path)| (name.clone(), absolute(path)));
            let uses = module.uses.iter().map(|it| Use {
                path: absolute(&it.path),
                ..*it
            });
            let paths = module.paths.iter().filter(|(_, path)| {
                // A lone small name may well be a variable.
                path.len() > 1 || path[0].starts_with(char::is_uppercase)
            });
            let paths = paths.map(|(line, path)| (*line, absolute(path)));
            absolutes.push((bindings.collect(), uses.collect(), paths.collect()));
        }
        for (module, absolutes) in self.by_path.values_mut().zip(absolutes) {
            (module.bindings, module.uses, module.paths) = absolutes;
        }
    }
}

/// A path of a module as seen from the root of all packages.
fn absolute(place: &[String], module: &Module, path: &[String], hops: usize) -> Vec<String> {
    let Some(head) = path.first().map(String::as_str) else {
        return Vec::new();
    };
    match head {
        "crate" => [&place[..1], &path[1..]].concat(),
        "self" => [place, &path[1..]].concat(),
        "super" => {
            let steps = path.iter().take_while(|it| *it == "super").count();
            [&place[..place.len() - steps], &path[steps..]].concat()
        }
        _ if module.children.contains(head) || module.items.contains(head) => {
            [place, path].concat()
        }
        _ => match module.bindings.get(head) {
            Some(target) if hops > 0 && target[0] != head => {
                let path = [&target[..], &path[1..]].concat();
                absolute(place, module, &path, hops - 1)
            }
            _ => path.to_vec(),
        },
    }
}

/// Whether what comes after these tokens has a visibility other than private.
fn is_public(before: &[Located]) -> bool {
    let before = match before {
        [before @ .., end] if end.is_mark(')') => {
            let begin = before.iter().rposition(|it| it.is_mark('('));
            &before[..begin.unwrap_or(0)]
        }
        _ => before,
    };
    before.last().is_some_and(|it| it.is_name("pub"))
}

/// Whether a name after these tokens goes on with a path, or names a member of a value.
fn is_inside_path(before: &[Located]) -> bool {
    match before {
        [.., it] if it.is_mark('.') => true,
        [.., it, separator] if separator.token == Token::PathSeparator => {
            it.name().is_some() || it.is_mark('>')
        }
        _ => false,
    }
}

/// The path that begins at `here`.
fn path_at(tokens: &[Located], here: usize) -> Vec<String> {
    let mut path = vec![
        tokens[here]
            .name()
            .expect("a path begins with a name")
            .to_owned(),
    ];
    let mut end = here + 1;
    while let [separator, name, ..] = &tokens[end.min(tokens.len())..] {
        let Some(name) = name
            .name()
            .filter(|_| separator.token == Token::PathSeparator)
        else {
            break;
        };
        path.push(name.to_owned());
        end += 2;
    }
    path
}

/// The place after the block that begins at `here`.
fn after_block(tokens: &[Located], mut here: usize) -> usize {
    let mut depth = 0;
    loop {
        match tokens[here].token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => depth -= 1,
            _ => {}
        }
        here += 1;
        if depth == 0 {
            return here;
        }
    }
}

/// The leaves of a `use` tree: line, path, and the name that it binds (`*` for all).
fn use_tree(tokens: &[Located], prefix: &[String], leaves: &mut Vec<(usize, Vec<String>, String)>) {
    let mut path = prefix.to_vec();
    let mut here = 0;
    let line = tokens.first().map_or(0, |it| it.line);
    while let Some(it) = tokens.get(here) {
        match &it.token {
            Token::PathSeparator => {}
            Token::Mark('*') => {
                leaves.push((it.line, path, String::from("*")));
                return;
            }
            Token::Mark('{') => {
                let end = after_block(tokens, here) - 1;
                let (mut begin, mut depth) = (here + 1, 0);
                for place in here + 1..=end {
                    match tokens[place].token {
                        Token::Mark('{') => depth += 1,
                        Token::Mark('}') if place < end => depth -= 1,
                        _ => {}
                    }
                    if place == end || depth == 0 && tokens[place].is_mark(',') {
                        if begin < place {
                            use_tree(&tokens[begin..place], &path, leaves);
                        }
                        begin = place + 1;
                    }
                }
                return;
            }
            Token::Name(name) if name == "as" => {
                let alias = tokens.get(here + 1).and_then(Located::name).unwrap_or("_");
                leaves.push((line, path, alias.to_owned()));
                return;
            }
            Token::Name(name) if name == "self" && !path.is_empty() => {}
            Token::Name(name) => path.push(name.clone()),
            _ => {}
        }
        here += 1;
    }
    let alias = path.last().cloned().unwrap_or_default();
    leaves.push((line, path, alias));
}

#[test]
fn a_path_leads_through_re_exports_to_its_home() {
    let modules = Modules::read(crate::files::root(), crate::PACKAGES);
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    for (written, home) in [
        ("dkvs_common::kv::Key", "common/src/kv.rs"),
        ("dkvs_common::wire::v2", "common/src/wire/v2/mod.rs"),
        ("dkvs_client::Client", "common/client/src/net"),
    ] {
        let (file, _) = modules.home(&path(written)).unwrap();
        assert!(file.starts_with(home), "{written}: {}", file.display());
    }
    assert!(modules.home(&path("std::fs::File")).is_none());
}

#[test]
fn every_leaf_of_a_use_is_read() {
    let source = "use a::{b::{C, self as d}, e as F, g::*};";
    let mut leaves = Vec::new();
    let all = tokens(source);
    use_tree(&all[1..all.len() - 1], &[], &mut leaves);
    let leaves: Vec<_> = leaves
        .iter()
        .map(|(_, path, alias)| (path.join("::"), &**alias))
        .collect();
    let expected = [
        ("a::b::C", "C"),
        ("a::b", "d"),
        ("a::e", "F"),
        ("a::g", "*"),
    ];
    assert_eq!(
        leaves,
        expected.map(|(path, alias)| (path.to_owned(), alias))
    );
}
