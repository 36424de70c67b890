//! Who imports whom inside a package, file by file: no two files may need each other, directly or over others.
//!
//! A file is a node. A path in its code (`use`, or spelled out) is an edge to the file that defines the name; what a `mod.rs` merely
//! re-exports belongs to the file that it comes from. Tests do not count: they may look at everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::scan::{Source, closing, code_of, words};

/// A module path from the root of its package: `rpc`, `client`, `pool`.
type Module = Vec<String>;

/// One file as a module.
struct File<'a> {
    path: &'a str,
    code: String,
    /// Names that it re-exports: name → the path it comes from, as written.
    exports: BTreeMap<String, Vec<String>>,
    /// Modules that it re-exports whole (`pub use inner::*`).
    globs: Vec<Vec<String>>,
}

/// The import graph of one package.
pub struct Graph<'a> {
    files: BTreeMap<Module, File<'a>>,
    /// File → the files that it needs.
    pub edges: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Graph<'a> {
    /// The graph of the files under `root`, which ends in a slash.
    pub fn of(sources: &'a [Source], root: &str) -> Self {
        let mut files = BTreeMap::new();
        for source in sources.iter().filter(|source| source.path.starts_with(root)) {
            let code = without_tests(&code_of(&source.text));
            let (exports, globs) = exports(&code);
            files.insert(module_of(&source.path[root.len()..]), File { path: &source.path, code, exports, globs });
        }
        let tests = test_modules(&files);
        files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        let mut graph = Self { files, edges: BTreeMap::new() };
        for (module, file) in &graph.files {
            let needed = graph.needs(module, file).into_iter().filter(|path| *path != file.path);
            graph.edges.insert(file.path, needed.collect());
        }
        graph
    }

    /// The files that a file's code needs.
    fn needs(&self, module: &Module, file: &File<'a>) -> Vec<&'a str> {
        let mut found = Vec::new();
        for path in paths(&file.code) {
            // A name that a `mod.rs` only passes on is no need of its own.
            if path.exported && !names_in_use(&file.code, path.names.last().unwrap()) {
                continue;
            }
            found.extend(self.absolute(module, &path.names).and_then(|names| self.find(&names, 0)));
        }
        found
    }

    /// A path from the root of the package; `None` for one that leads into another package.
    fn absolute(&self, module: &Module, names: &[String]) -> Option<Vec<String>> {
        let mut base = module.clone();
        let mut rest = names;
        match names.first()?.as_str() {
            "crate" => return Some(names[1..].to_vec()),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            // A module of its own, by its bare name.
            child => {
                let mut inner = module.clone();
                inner.push(child.to_string());
                self.files.get(&inner)?;
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The file that defines what a path names.
    fn find(&self, names: &[String], depth: usize) -> Option<&'a str> {
        let known = (0..=names.len()).rev().find(|&length| self.files.contains_key(&names[..length]))?;
        let (module, rest) = names.split_at(known);
        let file = &self.files[module];
        let Some(name) = rest.first().filter(|_| depth < 8) else { return Some(file.path) };
        let module = module.to_vec();
        if let Some(origin) = file.exports.get(name) {
            let origin = self.absolute(&module, origin)?;
            return self.find(&origin, depth + 1);
        }
        let defined = |origin: &Vec<String>| {
            let mut origin = self.absolute(&module, origin)?;
            let inner = self.files.get(&origin)?;
            origin.push(name.clone());
            let here = defines(&inner.code, name) || inner.exports.contains_key(name);
            here.then(|| self.find(&origin, depth + 1)).flatten()
        };
        Some(file.globs.iter().find_map(defined).unwrap_or(file.path))
    }

    /// Every circle: the files of each strongly connected part with more than one.
    pub fn circles(&self) -> Vec<Vec<&'a str>> {
        let reach: BTreeMap<&str, BTreeSet<&str>> = self.edges.keys().map(|&file| (file, self.reach(file))).collect();
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (&file, reached) in &reach {
            if !reached.contains(file) || seen.contains(file) {
                continue;
            }
            let circle: Vec<_> = reached.iter().copied().filter(|other| reach[other].contains(file)).collect();
            seen.extend(circle.iter().copied());
            found.push(circle);
        }
        found
    }

    fn reach(&self, from: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            open.extend(self.edges.get(file).into_iter().flatten().filter(|&&next| reached.insert(next)));
        }
        reached
    }
}

/// The module that a file is: `client/pool.rs` is `client`, `pool`.
fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    let names = path.split('/').filter(|name| !matches!(*name, "mod" | "lib" | "main"));
    names.map(str::to_string).collect()
}

/// The code in front of its tests.
fn without_tests(code: &str) -> String {
    let mut code = code.to_string();
    while let Some(at) = code.find("#[cfg(test)]") {
        let Some(open) = code[at..].find(['{', ';']).map(|found| at + found) else { break };
        let end = if code[open..].starts_with(';') { open } else { closing(&code, open) };
        let is_file = code[open..].starts_with(';') && words(&code[at..open], "mod").next().is_some();
        // A module of tests in a file of its own stays to be seen by `test_modules`.
        let mark = if is_file { format!(" testing {}", &code[at + "#[cfg(test)]".len()..=end]) } else { String::new() };
        code.replace_range(at..=end, &mark);
    }
    code
}

/// The modules that exist only in tests.
fn test_modules(files: &BTreeMap<Module, File<'_>>) -> Vec<Module> {
    let mut found = Vec::new();
    for (module, file) in files {
        for at in words(&file.code, "testing") {
            let declared = file.code[at..].split(';').next().unwrap().rsplit(' ').next().unwrap();
            let mut inner = module.clone();
            inner.push(declared.trim().to_string());
            found.push(inner);
        }
    }
    found
}

/// One path of a file's code.
struct Path {
    names: Vec<String>,
    /// Whether it is the path of a re-export.
    exported: bool,
}

/// Every path of the code that has at least two names, the branches of use trees spread out.
fn paths(code: &str) -> Vec<Path> {
    let mut found = Vec::new();
    let mut rest = String::with_capacity(code.len());
    let mut at = 0;
    for start in words(code, "use") {
        if start < at {
            continue;
        }
        let end = code[start..].find(';').map_or(code.len(), |found| start + found);
        let before = code[..start].trim_end();
        let exported = before.ends_with("pub")
            || (before.ends_with(')')
                && before.rfind("pub(").is_some_and(|open| open > before.rfind([';', '}']).unwrap_or(0)));
        let branches = spread(code[start + "use".len()..end].trim());
        found.extend(branches.into_iter().map(|(names, _)| Path { names, exported }));
        rest.push_str(&code[at..start]);
        at = end;
    }
    rest.push_str(&code[at..]);
    found.extend(spelled(&rest).into_iter().map(|names| Path { names, exported: false }));
    found
}

/// The branches of a use tree: each path, and the name that it has afterwards.
fn spread(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let head: Vec<String> =
            tree[..open].split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect();
        let inside = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let mut found = Vec::new();
        for branch in split(inside) {
            for (names, name) in spread(branch) {
                let tail = if names == ["self"] { Vec::new() } else { names };
                found.push(([head.clone(), tail].concat(), name));
            }
        }
        return found;
    }
    let (path, renamed) =
        tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim().to_string())));
    let names: Vec<String> =
        path.split("::").map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect();
    match names.last().cloned() {
        Some(last) => vec![(names, renamed.unwrap_or(last))],
        None => Vec::new(),
    }
}

/// The branches between the commas of the outermost level.
fn split(tree: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, byte) in tree.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                found.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&tree[start..]);
    found.retain(|branch| !branch.trim().is_empty());
    found
}

/// Paths that are spelled out in the code.
fn spelled(code: &str) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(colons) = code[at..].find("::").map(|found| at + found) {
        let start = code[..colons].rfind(|c| !is_name(c)).map_or(0, |found| found + 1);
        let end = code[colons..].find(|c| !is_name(c) && c != ':').map_or(code.len(), |found| colons + found);
        let names: Vec<String> =
            code[start..end].split("::").filter(|name| !name.is_empty()).map(str::to_string).collect();
        // Who may see a name says nothing about what is needed.
        if start < colons && names.len() > 1 && !code[..start].ends_with("(in ") {
            found.push(names);
        }
        at = end.max(colons + 2);
    }
    found
}

/// What a file passes on: names with their paths, and modules whose every name it passes on.
fn exports(code: &str) -> (BTreeMap<String, Vec<String>>, Vec<Vec<String>>) {
    let (mut names, mut globs) = (BTreeMap::new(), Vec::new());
    for start in words(code, "use") {
        let end = code[start..].find(';').map_or(code.len(), |found| start + found);
        for (mut path, name) in spread(code[start + "use".len()..end].trim()) {
            if name == "*" {
                path.pop();
                globs.push(path);
            } else {
                names.insert(name, path);
            }
        }
    }
    (names, globs)
}

/// Whether the code names `name` outside its use declarations.
fn names_in_use(code: &str, name: &str) -> bool {
    let mut declared = Vec::new();
    for start in words(code, "use") {
        declared.push(start..code[start..].find(';').map_or(code.len(), |found| start + found));
    }
    words(code, name).any(|at| !declared.iter().any(|range| range.contains(&at)))
}

/// Whether the code defines an item of this name.
fn defines(code: &str, name: &str) -> bool {
    let kinds = ["fn ", "struct ", "enum ", "trait ", "type ", "const ", "static ", "mod ", "union "];
    words(code, name).any(|at| kinds.iter().any(|kind| code[..at].ends_with(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> usize {
        let source = |&(path, text): &(&str, &str)| Source { path: path.into(), text: text.into() };
        let sources: Vec<_> = files.iter().map(source).collect();
        Graph::of(&sources, "src/").circles().len()
    }

    #[test]
    fn a_circle_of_two_and_of_three_is_seen() {
        assert_eq!(circles(&[("src/a.rs", "use super::b::B;"), ("src/b.rs", "use crate::a::A;")]), 1);
        assert_eq!(circles(&[("src/a.rs", "use super::b::B;"), ("src/b.rs", "fn f() { g() }")]), 0);
        let three = [
            ("src/a.rs", "use super::b::B;"),
            ("src/b.rs", "fn f() { crate::c::f() }"),
            ("src/c.rs", "use super::{a::{A, X}, d};"),
        ];
        assert_eq!(circles(&three), 1);
    }

    #[test]
    fn a_name_belongs_to_the_file_that_defines_it() {
        let folder = "mod a;\nmod b;\npub use a::A;\npub(crate) use b::*;";
        let files = [("src/x/mod.rs", folder), ("src/x/a.rs", "use super::B;"), ("src/x/b.rs", "pub struct B;")];
        assert_eq!(circles(&files), 0);
        let files =
            [("src/x/mod.rs", folder), ("src/x/a.rs", "use super::B;"), ("src/x/b.rs", "use super::A; pub struct B;")];
        assert_eq!(circles(&files), 1);
    }

    #[test]
    fn a_folder_and_its_file_that_need_each_other_are_a_circle() {
        let files = [("src/x/mod.rs", "mod a;\npub use a::A;\npub struct C(A);"), ("src/x/a.rs", "use super::C;")];
        assert_eq!(circles(&files), 1);
        let files = [("src/x/mod.rs", "mod a;\npub use a::A;\npub struct C;"), ("src/x/a.rs", "use super::C;")];
        assert_eq!(circles(&files), 0);
    }

    #[test]
    fn tests_may_look_at_everything() {
        let files =
            [("src/a.rs", "use super::b::B;"), ("src/b.rs", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n")];
        assert_eq!(circles(&files), 0);
        let files = [
            ("src/x/mod.rs", "#[cfg(test)]\nmod a;\nmod b;"),
            ("src/x/a.rs", "use super::b::B;"),
            ("src/x/b.rs", "use super::a::A;"),
        ];
        assert_eq!(circles(&files), 0);
    }
}
