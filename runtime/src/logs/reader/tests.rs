use super::*;
use crate::logs::{Stream, Writer};
use crate::runtime::LogLimits;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn writer(directory: &tempfile::TempDir, file_bytes: u64, files: u32) -> Writer {
    Writer::new(directory.path().to_owned(), LogLimits { file_bytes, files })
}

fn reader(directory: &tempfile::TempDir, options: ReadOptions) -> Reader {
    Reader::new(directory.path().to_owned(), options)
}

fn drain(reader: &mut Reader) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let batch = reader.read_batch().unwrap();
        if batch.is_empty() {
            return lines;
        }
        lines.extend(batch.into_iter().map(|e| String::from_utf8(e.bytes).unwrap()));
    }
}

#[test]
fn lines_come_back_in_order_with_their_stream() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 1 << 20, 3);
    log.write(Stream::Stdout, b"one\ntw", at(0)).unwrap();
    log.write(Stream::Stderr, b"err\n", at(1)).unwrap();
    log.write(Stream::Stdout, b"o\nlast", at(2)).unwrap();
    log.finish(at(3)).unwrap();
    assert_eq!(drain(&mut reader(&directory, ReadOptions::default())), ["one", "err", "two", "last"]);
}

#[test]
fn a_long_line_becomes_parts() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 1 << 20, 3);
    let long = vec![b'x'; 40_000];
    log.write(Stream::Stdout, &long, at(0)).unwrap();
    log.write(Stream::Stdout, b"\n", at(0)).unwrap();
    let entries = reader(&directory, ReadOptions::default()).read_batch().unwrap();
    let shape: Vec<_> = entries.iter().map(|e| (e.bytes.len(), e.partial)).collect();
    assert_eq!(shape, [(16_384, true), (16_384, true), (7_232, false)]);
}

#[test]
fn a_line_of_just_the_limit_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 1 << 20, 3);
    let mut line = vec![b'x'; crate::logs::ENTRY_LIMIT_BYTES];
    line.push(b'\n');
    log.write(Stream::Stdout, &line, at(0)).unwrap();
    let entries = reader(&directory, ReadOptions::default()).read_batch().unwrap();
    assert_eq!(entries.len(), 1);
    assert!(!entries[0].partial);
}

#[test]
fn a_reader_goes_on_over_rotations() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 200, 4);
    let mut reader = reader(&directory, ReadOptions::default());
    let mut seen = Vec::new();
    for number in 0..60 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), at(number)).unwrap();
        if number % 7 == 0 {
            seen.extend(drain(&mut reader));
        }
    }
    seen.extend(drain(&mut reader));
    let expect: Vec<String> = (0..60).map(|n| format!("line {n}")).collect();
    assert_eq!(seen, expect);
}

#[test]
fn only_the_newest_files_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 200, 3);
    for number in 0..100 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), at(number)).unwrap();
    }
    let names = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names, 3);
    let lines = drain(&mut reader(&directory, ReadOptions::default()));
    assert_eq!(lines.last().unwrap(), "line 99");
    assert!(lines.len() < 20, "{}", lines.len());
}

#[test]
fn the_tail_counts_lines_over_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 200, 5);
    for number in 0..15 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), at(number)).unwrap();
    }
    for count in 0..=15_u64 {
        let options = ReadOptions { tail: Some(count), since: None };
        let lines = drain(&mut reader(&directory, options));
        assert_eq!(lines.len() as u64, count);
        if count > 0 {
            assert_eq!(lines[0], format!("line {}", 15 - count));
        }
    }
}

#[test]
fn the_tail_takes_all_parts_of_a_long_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 10 << 20, 2);
    for _ in 0..3 {
        let mut line = vec![b'y'; 100_000];
        line.push(b'\n');
        log.write(Stream::Stdout, &line, at(0)).unwrap();
    }
    let mut reader = reader(&directory, ReadOptions { tail: Some(2), since: None });
    let bytes: usize = drain(&mut reader).iter().map(String::len).sum();
    assert_eq!(bytes, 200_000);
}

#[test]
fn since_leaves_out_what_is_older() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 1 << 20, 2);
    for number in 0..5 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes(), at(number)).unwrap();
    }
    let options = ReadOptions { tail: None, since: Some(at(3)) };
    assert_eq!(drain(&mut reader(&directory, options)), ["line 3", "line 4"]);
}

#[test]
fn a_damaged_line_is_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = writer(&directory, 1 << 20, 2);
    log.write(Stream::Stdout, b"good\n", at(0)).unwrap();
    let path = directory.path().join("current");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&vec![b'z'; 300_000]);
    bytes.push(b'\n');
    std::fs::write(&path, bytes).unwrap();
    log.write(Stream::Stdout, b"good again\n", at(1)).unwrap();
    assert_eq!(drain(&mut reader(&directory, ReadOptions::default())), ["good", "good again"]);
}
