//! The wire vectors as files: what this codec writes and reads.

use flipcall::rpc::Status;
use flipcall::rpc::codec::{Decode, DecodeError, Encode, Raw, from_bytes, to_bytes};

/// The fields of each line of a vector file.
fn lines(name: &str) -> Vec<Vec<String>> {
    let path = format!("{}/tests/vectors/rpc/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let fields = |line: &str| line.split('|').map(|field| field.trim().to_owned()).collect();
    let lines: Vec<Vec<String>> = text.lines().filter(|line| !line.starts_with('#')).map(fields).collect();
    assert!(!lines.is_empty());
    lines
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn check<'a, T: Encode + Decode<'a> + PartialEq + std::fmt::Debug>(value: T, bytes: &'a [u8]) {
    assert_eq!(to_bytes(&value), bytes, "{value:?}");
    assert_eq!(from_bytes::<T>(bytes).unwrap(), value);
}

#[test]
fn primitives_are_written_and_read_as_the_files_say() {
    for line in lines("primitives.txt") {
        let [kind, value, bytes] = &line[..] else { panic!("{line:?}") };
        let bytes = &hex(bytes)[..];
        match kind.as_str() {
            "u8" => check(value.parse::<u8>().unwrap(), bytes),
            "u16" => check(value.parse::<u16>().unwrap(), bytes),
            "u32" => check(value.parse::<u32>().unwrap(), bytes),
            "u64" => check(value.parse::<u64>().unwrap(), bytes),
            "i32" => check(value.parse::<i32>().unwrap(), bytes),
            "i64" => check(value.parse::<i64>().unwrap(), bytes),
            "bool" => check(value.parse::<bool>().unwrap(), bytes),
            "str" => {
                check(value.as_str(), bytes);
                check(value.clone(), bytes);
            }
            "bytes" => check(&hex(value)[..], bytes),
            "strs" => check(value.split(',').map(str::to_owned).collect::<Vec<String>>(), bytes),
            "raw" => assert_eq!(to_bytes(&Raw(&hex(value))), bytes),
            other => panic!("no type {other}"),
        }
    }
}

#[test]
fn what_is_malformed_is_refused_by_name() {
    fn refused<'a, T: Decode<'a> + std::fmt::Debug>(bytes: &'a [u8]) -> DecodeError {
        from_bytes::<T>(bytes).unwrap_err()
    }
    for line in lines("refused.txt") {
        let [kind, why, bytes] = &line[..] else { panic!("{line:?}") };
        let bytes = &hex(bytes)[..];
        let error = match kind.as_str() {
            "u8" => refused::<u8>(bytes),
            "u32" => refused::<u32>(bytes),
            "bool" => refused::<bool>(bytes),
            "str" => refused::<&str>(bytes),
            "bytes" => refused::<&[u8]>(bytes),
            "strs" => refused::<Vec<String>>(bytes),
            other => panic!("no type {other}"),
        };
        assert_eq!(format!("{error:?}"), *why, "{line:?}");
    }
}

#[test]
fn errors_are_written_and_read_as_the_file_says() {
    for line in lines("messages.txt") {
        let [message, bytes] = &line[..] else { panic!("{line:?}") };
        let words: Vec<&str> = message.split(' ').collect();
        let ["error", code, message, op, path] = words[..] else { panic!("{words:?}") };
        let after = |field: &str| field.split_once('=').unwrap().1.to_owned();
        let status = Status::new(code.parse::<u8>().unwrap().into(), after(message)).op(after(op)).path(after(path));
        check(status, &hex(bytes));
    }
}
