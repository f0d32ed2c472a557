//! Agreement with the `tar` crate on what it writes, and refusal of what is ambiguous.

use super::*;

fn list(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(archive);
    let mut all = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut content = Vec::new();
        let mut buffer = [0; 100];
        loop {
            match reader.read_content(&mut buffer)? {
                0 => break,
                read => content.extend_from_slice(&buffer[..read]),
            }
        }
        all.push((entry, content));
    }
    reader.drain()?;
    Ok(all)
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(9);
    header
}

/// Entries with long names, PAX records and content of awkward sizes.
fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for size in [0, 1, 511, 512, 513, 5000] {
        let path = format!("dir/{}/{size}", "long".repeat(size as usize % 60));
        let mut header = header(tar::EntryType::Regular, size);
        builder.append_data(&mut header, path, io::repeat(b'x').take(size)).unwrap();
    }
    let mut link = header(tar::EntryType::Symlink, 0);
    builder.append_link(&mut link, "link", "t".repeat(300)).unwrap();
    builder.append_pax_extensions([("SCHILY.xattr.user.a", &b"1"[..]), ("mtime", b"12.5")]).unwrap();
    builder.append_data(&mut header(tar::EntryType::Regular, 3), "pax", &b"pax"[..]).unwrap();
    builder.append_data(&mut header(tar::EntryType::Directory, 0), "d/", io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn it_lists_what_the_tar_crate_lists() {
    let archive = sample();
    let ours = list(&archive).unwrap();
    let mut theirs = tar::Archive::new(&archive[..]);
    let mut count = 0;
    for (entry, (our, content)) in theirs.entries().unwrap().zip(&ours) {
        let mut entry = entry.unwrap();
        assert_eq!(&*entry.path_bytes(), &our.path[..]);
        if let EntryKind::Symlink { target } = &our.kind {
            assert_eq!(&*entry.link_name_bytes().unwrap(), &target[..]);
        }
        let mut their_content = Vec::new();
        entry.read_to_end(&mut their_content).unwrap();
        assert_eq!(&their_content, content);
        assert_eq!((our.uid, our.gid, our.mode), (7, 8, 0o644));
        count += 1;
    }
    assert_eq!((count, ours.len()), (9, 9));
    let pax = &ours[7].0;
    assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"1".to_vec())]);
    assert_eq!(pax.mtime, Time { seconds: 12, nanoseconds: 500_000_000 });
}

#[test]
fn a_cut_anywhere_is_an_error_or_a_whole_prefix() {
    let archive = sample();
    let whole = list(&archive).unwrap();
    for cut in (0..archive.len()).step_by(37) {
        match list(&archive[..cut]) {
            Ok(prefix) => assert_eq!(prefix, whole[..prefix.len()], "cut at {cut}"),
            Err(TarError::Truncated { .. } | TarError::Malformed { .. }) => {}
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
fn a_flipped_header_byte_is_noticed() {
    let mut archive = Vec::from(&sample()[..512]);
    for at in 0..512 {
        archive[at] ^= 1;
        assert!(list(&archive).is_err(), "byte {at}");
        archive[at] ^= 1;
    }
}

fn raw(mut header: tar::Header, content: &[u8]) -> Vec<u8> {
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

#[track_caller]
fn refused(archive: &[u8], says: &str) {
    let error = list(archive).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn ambiguity_is_refused() {
    let named = |kind: u8, size| {
        let mut header = header(tar::EntryType::new(kind), size);
        header.set_path("name").unwrap();
        header
    };
    refused(&raw(named(b'1', 4), b"data"), "no regular file has content");
    refused(&raw(named(b'5', 4), b"data"), "no regular file has content");
    refused(&raw(named(b'S', 0), b""), "sparse");
    refused(&raw(named(b'V', 0), b""), "entry type 'V'");
    refused(&raw(named(b'x', 0), b""), "belongs to no entry");
    refused(&raw(named(b'L', 5000), &[b'a'; 5000]), "at most 4097");
    refused(&raw(named(b'x', 2 << 20), &[b'a'; 2 << 20]), "at most 1048576");
    refused(b"this is certainly not a tar archive".repeat(20).as_slice(), "checksum");
    let mut huge = named(b'0', 0);
    huge.set_size(u64::MAX >> 2);
    refused(&raw(huge, b""), "truncated");
    let mut owner = named(b'0', 0);
    owner.set_uid(u64::from(u32::MAX));
    refused(&raw(owner, b""), "beyond 32 bits");
}

#[test]
fn the_size_in_a_pax_record_wins_over_the_header() {
    let mut pax = raw(
        {
            let mut header = header(tar::EntryType::XHeader, 11);
            header.set_path("pax").unwrap();
            header
        },
        b"11 size=600",
    );
    pax[512..523].copy_from_slice(b"11 size=60\n");
    let mut file = header(tar::EntryType::Regular, 0);
    file.set_path("file").unwrap();
    let archive = [pax, raw(file, &[b'c'; 60])].concat();
    let entries = list(&archive).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].1, [b'c'; 60]);
}
