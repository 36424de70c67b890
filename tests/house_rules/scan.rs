//! Just enough of Rust's lexer to tell code from comments and literals.

use std::path::{Path, PathBuf};

/// One file of the repository: its path from the root, with slashes, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// Folders that hold nothing written by hand.
const GENERATED: [&str; 6] = ["target", ".git", "corpus", "artifacts", "coverage", "proptest-regressions"];

/// Every file under the root of the package whose name ends in one of `endings`.
pub fn sources(endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !GENERATED.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The entries of a folder, none if there is no such folder.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// `text` with every comment, string and character literal blanked out. Lines stay where they are.
pub fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => end_of(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_block(bytes, at),
            b'"' => end_of_string(bytes, at + 1),
            b'r' | b'b' | b'c' if !in_word(bytes, at) => raw_string(bytes, at).unwrap_or(at),
            b'\'' => end_of_character(bytes, at),
            _ => at,
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).unwrap()
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn end_of(bytes: &[u8], at: usize, mark: &[u8]) -> usize {
    bytes[at..].windows(mark.len()).position(|window| window == mark).map_or(bytes.len(), |found| at + found)
}

fn end_of_block(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of a raw string that begins here, with or without `b` or `c`.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let mut quote = at + usize::from(bytes[at] != b'r');
    if bytes.get(quote) != Some(&b'r') {
        return None;
    }
    quote += 1;
    let hashes = bytes[quote..].iter().take_while(|&&byte| byte == b'#').count();
    quote += hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let mark = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some((end_of(bytes, quote + 1, &mark) + mark.len()).min(bytes.len()))
}

/// The end of a character literal; a lifetime ends where it begins.
fn end_of_character(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at + 1) {
        Some(b'\\') => end_of(bytes, at + 3, b"'") + 1,
        Some(_) => match std::str::from_utf8(&bytes[at + 1..bytes.len().min(at + 5)])
            .or_else(|error| std::str::from_utf8(&bytes[at + 1..at + 1 + error.valid_up_to()]))
            .ok()
            .and_then(|text| text.chars().next())
        {
            Some(character) if bytes.get(at + 1 + character.len_utf8()) == Some(&b'\'') => {
                at + 2 + character.len_utf8()
            }
            _ => at,
        },
        None => at,
    }
}

/// Where `word` stands alone in `text`.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !in_word(bytes, at) && bytes.get(at + word.len()).is_none_or(|&byte| !is_word(byte)))
}

/// The number of the line that `at` lies in, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Name, first line and number of lines of every function with a body.
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let name: String = code[at + 2..].trim_start().chars().take_while(|&c| is_word(c as u8)).collect();
        let Some(body) = code[at..].find(['{', ';']).map(|found| at + found) else { continue };
        if name.is_empty() || code[body..].starts_with(';') {
            continue;
        }
        let (first, last) = (line_of(code, at), line_of(code, closing(code, body)));
        found.push((name, first, last - first + 1));
    }
    found
}

/// Where the brace that opens at `open` closes.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    code.len() - 1
}

/// The first name of every path that follows `prefix`, the branches of a `{…}` included.
pub fn first_names(code: &str, prefix: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix).filter(|&(at, _)| !in_word(code.as_bytes(), at)) {
        let after = at + prefix.len();
        let rest = &code[after..];
        let line = line_of(code, at);
        let tree = match rest.starts_with('{') {
            true => &code[after + 1..closing(code, after)],
            false => &rest[..rest.find(|c: char| !is_word(c as u8)).unwrap_or(rest.len())],
        };
        found.extend(branches(tree).into_iter().map(|name| (name, line)));
    }
    found
}

/// The first name of each branch of a use tree.
pub fn branches(tree: &str) -> Vec<String> {
    let (mut depth, mut names, mut name) = (0, Vec::new(), String::new());
    let mut open = true;
    for byte in tree.chars().chain([',']) {
        match byte {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(Some(std::mem::take(&mut name)).filter(|name| !name.is_empty()));
                open = true;
            }
            _ if depth == 0 && open && is_word(byte as u8) => name.push(byte),
            _ if !name.is_empty() => open = false,
            _ => {}
        }
    }
    names
}
