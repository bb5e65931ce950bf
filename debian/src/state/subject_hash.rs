//! The name by which OpenSSL finds an authority in a folder: `X509_subject_name_hash`, that is the first four
//! bytes of the SHA-1 of the subject in OpenSSL's canonical form (`crypto/x509/x_name.c`).

use sha1::{Digest as _, Sha1};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
/// The version of a certificate, which those of version 1 lack.
const EXPLICIT_0: u8 = 0xa0;

/// The hash of the subject of a certificate (RFC 5280, section 4.1, in DER).
pub(super) fn subject_hash(certificate: &[u8]) -> Option<u32> {
    let (_, certificate, _) = value(certificate)?;
    let (_, mut rest, _) = value(certificate)?;
    if rest.first() == Some(&EXPLICIT_0) {
        rest = value(rest)?.2;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        rest = value(rest)?.2;
    }
    let (SEQUENCE, mut names, _) = value(rest)? else {
        return None;
    };
    let mut canonical = Vec::new();
    while !names.is_empty() {
        let (SET, mut set, after) = value(names)? else {
            return None;
        };
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (_, attribute, next) = value(set)?;
            attributes.push(canonical_attribute(attribute)?);
            set = next;
        }
        attributes.sort();
        canonical.extend(encode(SET, &attributes.concat()));
        names = after;
    }
    let digest = Sha1::digest(&canonical);
    Some(u32::from_le_bytes(digest[..4].try_into().ok()?))
}

fn canonical_attribute(attribute: &[u8]) -> Option<Vec<u8>> {
    let (_, _, rest) = value(attribute)?;
    let name = &attribute[..attribute.len() - rest.len()];
    let (tag, bytes, _) = value(rest)?;
    let wide = |size: usize| -> Option<String> {
        let points = bytes.chunks(size).map(|unit| {
            char::from_u32(
                unit.iter()
                    .fold(0, |point, byte| point << 8 | u32::from(*byte)),
            )
        });
        points.collect()
    };
    let text = match tag {
        // UTF8String, and the ASCII strings; T61String, which OpenSSL reads as Latin-1.
        0x0c | 0x13 | 0x16 | 0x1a => String::from_utf8(bytes.to_vec()).ok()?,
        0x14 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        0x1c => wide(4)?,
        0x1e => wide(2)?,
        _ => return Some(encode(SEQUENCE, &[name, rest].concat())),
    };
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let words: Vec<&str> = text.split(blank).filter(|word| !word.is_empty()).collect();
    let text = words.join(" ").to_ascii_lowercase();
    Some(encode(
        SEQUENCE,
        &[name, &encode(UTF8_STRING, text.as_bytes())].concat(),
    ))
}

/// Tag, content and what follows of the first value of `bytes`.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        let length = digits
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        (length, rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let mut encoded = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => encoded.push(short),
        _ => {
            encoded.push(0x80 | u8::try_from(length.len() - zeros).unwrap_or(8));
            encoded.extend(&length[zeros..]);
        }
    }
    encoded.extend(content);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_certificates_have_no_hash() {
        for wrong in [
            &b""[..],
            b"\x30",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x02\x30\x00",
        ] {
            assert_eq!(subject_hash(wrong), None);
        }
    }

    #[test]
    fn names_are_compared_in_canonical_form() {
        let attribute = |tag: u8, text: &[u8]| {
            [
                &[6, 1, 1, tag, u8::try_from(text.len()).expect("short")],
                text,
            ]
            .concat()
        };
        assert_eq!(
            canonical_attribute(&attribute(0x13, b" My  Name ")),
            canonical_attribute(&attribute(0x0c, b"my name"))
        );
        assert_eq!(encode(4, &[0; 200])[..3], [4, 0x81, 200]);
    }
}
