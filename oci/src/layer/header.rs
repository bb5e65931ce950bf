//! Tar headers: ustar, with PAX records (POSIX.1-2001, pax Interchange Format) for what ustar cannot say.

use std::collections::BTreeMap;

use imagespec_core::contract;

/// Size of a tar block, in bytes.
pub(super) const BLOCK: usize = 512;
/// The largest size, in bytes, that ustar's eleven octal digits hold.
const USTAR_SIZE: u64 = 0o77_777_777_777;
/// The largest id that ustar's seven octal digits hold.
const USTAR_ID: u32 = 0o7_777_777;

/// Mode, owner, time and extended attributes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time, in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Metadata {
    /// Of a mode and an owner whose group has the same id, at the contract's time.
    pub const fn new(mode: u32, owner: u32) -> Self {
        Self {
            mode,
            uid: owner,
            gid: owner,
            mtime: contract::MTIME,
            xattrs: BTreeMap::new(),
        }
    }
}

/// A device an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A character device of a major and a minor number.
    Character(u32, u32),
    /// A block device of a major and a minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// What kind of entry a header announces.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry<'a> {
    File(u64),
    Directory,
    Symlink(&'a [u8]),
    Hardlink(&'a [u8]),
    Device(Device),
}

/// The header of an entry, PAX records included: a whole number of blocks.
pub(super) fn encode(path: &[u8], entry: Entry<'_>, metadata: &Metadata) -> Vec<u8> {
    let mut name = path.to_vec();
    if matches!(entry, Entry::Directory) {
        name.push(b'/');
    }
    let link = match entry {
        Entry::Symlink(target) | Entry::Hardlink(target) => target,
        _ => &[],
    };
    let size = if let Entry::File(size) = entry {
        size
    } else {
        0
    };
    let split = split_name(&name);
    let records = records(&name, split.is_none(), link, size, metadata);
    let mut out = Vec::with_capacity(BLOCK * 3);
    if !records.is_empty() {
        let plain = Metadata::new(0o644, 0);
        let title = [b"PaxHeaders/", &name[..name.len().min(80)]].concat();
        let title = title.strip_suffix(b"/").unwrap_or(&title);
        out.extend(ustar(
            b"",
            title,
            b'x',
            b"",
            records.len() as u64,
            None,
            &plain,
        ));
        out.extend(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    let (prefix, rest) = split.unwrap_or((b"", &name[..name.len().min(100)]));
    let (kind, device) = match entry {
        Entry::File(_) => (b'0', None),
        Entry::Hardlink(_) => (b'1', None),
        Entry::Symlink(_) => (b'2', None),
        Entry::Device(Device::Character(major, minor)) => (b'3', Some((major, minor))),
        Entry::Device(Device::Block(major, minor)) => (b'4', Some((major, minor))),
        Entry::Directory => (b'5', None),
        Entry::Device(Device::Fifo) => (b'6', None),
    };
    out.extend(ustar(
        prefix,
        rest,
        kind,
        &link[..link.len().min(100)],
        size.min(USTAR_SIZE),
        device,
        metadata,
    ));
    out
}

/// `name` as ustar's prefix and name, where it fits.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let first = name.len().saturating_sub(101);
    let slash = (first..name.len().min(156))
        .find(|index| name[*index] == b'/' && index + 1 < name.len())?;
    (slash <= 155).then(|| (&name[..slash], &name[slash + 1..]))
}

fn records(name: &[u8], long: bool, link: &[u8], size: u64, metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    let unreadable = |bytes: &[u8]| std::str::from_utf8(bytes).is_err();
    if (long && unreadable(name)) || (link.len() > 100 && unreadable(link)) {
        record(&mut out, "hdrcharset", b"BINARY");
    }
    if long {
        record(&mut out, "path", name);
    }
    if link.len() > 100 {
        record(&mut out, "linkpath", link);
    }
    if size > USTAR_SIZE {
        record(&mut out, "size", size.to_string().as_bytes());
    }
    if metadata.uid > USTAR_ID {
        record(&mut out, "uid", metadata.uid.to_string().as_bytes());
    }
    if metadata.gid > USTAR_ID {
        record(&mut out, "gid", metadata.gid.to_string().as_bytes());
    }
    for (key, value) in &metadata.xattrs {
        record(&mut out, &format!("SCHILY.xattr.{key}"), value);
    }
    out
}

/// One PAX record: its length in decimal, itself included, a space, `key=value`, a line feed.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} {key}=").as_bytes());
    out.extend(value);
    out.push(b'\n');
}

fn ustar(
    prefix: &[u8],
    name: &[u8],
    kind: u8,
    link: &[u8],
    size: u64,
    device: Option<(u32, u32)>,
    metadata: &Metadata,
) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..108], (metadata.mode & 0o7777).into());
    octal(&mut block[108..116], metadata.uid.min(USTAR_ID).into());
    octal(&mut block[116..124], metadata.gid.min(USTAR_ID).into());
    octal(&mut block[124..136], size);
    octal(
        &mut block[136..148],
        u64::try_from(metadata.mtime).unwrap_or(0),
    );
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if let Some((major, minor)) = device {
        octal(&mut block[329..337], major.into());
        octal(&mut block[337..345], minor.into());
    }
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Writes a number in octal digits that fill the field but for a final NUL.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let text = format!("{number:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}
