//! The words that the glossary retired stay retired.
//!
//! The table in DESIGN.md ("Glossary") is the list: what its last column has in backticks names nothing any more. No file and no item of
//! the library has such a word in its name. A few of them have no other meaning here, and stand nowhere, comments and docs included.

use crate::scan::{Source, code_of, line_of, words};

/// Retired words that mean nothing else on any page of this project.
const NOWHERE: [&str; 8] = ["pen", "floors", "tally", "intook", "judge", "judges", "hopes", "loan"];
/// Names in which such a word has another meaning.
const OTHER_MEANING: [&str; 3] = ["CACHE_LINE", "look_up", "first_line"];
/// What introduces a name.
const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "mod", "const", "static"];

/// The words in backticks in the last column of the glossary's table.
pub fn retired(design: &str) -> Vec<String> {
    let section = design.split_once("## Glossary").map_or("", |(_, rest)| rest.split("\n## ").next().unwrap());
    let last = section.lines().filter_map(|line| line.trim().strip_suffix('|')?.rsplit('|').next());
    let quoted = last.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let mut found: Vec<String> = quoted.map(str::to_string).collect();
    found.sort();
    found.dedup();
    found
}

/// The words that a name is made of, in lower case: `WindowLine` is `window` and `line`.
fn parts(name: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && was_lower) {
            found.push(String::new());
        }
        was_lower = c.is_lowercase();
        found.last_mut().unwrap().extend(c.to_lowercase().filter(|&c| c != '_'));
    }
    found
}

/// The names of a file's items, each with its line.
fn names(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for at in ITEMS.iter().flat_map(|item| words(code, item).map(|at| at + item.len())) {
        let rest = code[at..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        found.push((name, line_of(code, at)));
    }
    found
}

/// Retired words in the names of a file and its items.
pub fn named(source: &Source, retired: &[String]) -> Vec<String> {
    let code = code_of(&source.text);
    let code = &code[..code.find("#[cfg(test)]").unwrap_or(code.len())];
    let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod").rsplit('/').next().unwrap();
    let mut faults = Vec::new();
    for (name, line) in names(code)
        .into_iter()
        .filter(|(name, _)| !OTHER_MEANING.contains(&name.as_str()))
        .chain([(stem.to_string(), 1)])
    {
        let words = parts(&name);
        let found = retired.iter().filter(|word| words.contains(word));
        faults.extend(found.map(|word| format!("{}:{line}: {name}: the glossary retired `{word}`", source.path)));
    }
    faults
}

/// Retired words that may stand nowhere.
pub fn written(source: &Source) -> Vec<String> {
    let text = source.text.to_lowercase();
    let found = NOWHERE.iter().flat_map(|word| words(&text, word).map(move |at| (word, at)));
    // The glossary itself names them, in backticks.
    let found = found.filter(|&(word, at)| source.path != "DESIGN.md" || !text[at + word.len()..].starts_with('`'));
    found.map(|(word, at)| format!("{}:{}: the glossary retired `{word}`", source.path, line_of(&text, at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_glossary_is_read() {
        let design = "# D\n## Glossary\n| word | meaning | not |\n|---|---|---|\n| a | b `c` | `d`, `e` |\n| f | g | h |\n## Next\n| x | y | `z` |\n";
        assert_eq!(retired(design), ["d", "e"]);
    }

    #[test]
    fn a_retired_word_is_found_in_a_name_and_only_there() {
        let retired = ["line".to_string(), "late".to_string()];
        let faults = |path: &str, text: &str| named(&Source { path: path.into(), text: text.into() }, &retired).len();
        assert_eq!(faults("src/a.rs", "struct WindowLine; fn take_late() { let line = 1; }"), 2);
        assert_eq!(faults("src/late.rs", "mod line;"), 2);
        assert_eq!(faults("src/line/mod.rs", ""), 1);
        assert_eq!(faults("src/a.rs", "fn plates() {} // fn line()"), 0);
    }

    #[test]
    fn some_words_stand_nowhere() {
        let faults = |path: &str, text: &str| written(&Source { path: path.into(), text: text.into() }).len();
        assert_eq!(faults("src/a.rs", "// Holds the pen.\nlet x = 1;"), 1);
        assert_eq!(faults("docs/a.md", "It is open. Pens."), 0);
        assert_eq!(faults("DESIGN.md", "| control | … | `pen` |"), 0);
    }
}
