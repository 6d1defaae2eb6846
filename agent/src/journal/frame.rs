//! How entries lie in the file, and how a file is read back: what is whole, what is torn, what is damaged.
//!
//! ```text
//! length u32 │ sequence u64 │ head check u32 │ payload check u32 │ payload … │ end byte 0xA5
//! ```
//!
//! All numbers are little-endian; both checks are CRC32C. Behind the last frame the file holds zeros, reserved ahead.
//!
//! *Torn* is what a crash leaves of a write that was never confirmed: a beginning, then zeros or the end of the file.
//! It is cut. *Damaged* is everything else, and is never skipped. The two must not be mixed up: cutting a damaged
//! record forgets an effect, and quarantining a torn one makes work unknown for nothing. Hence two additions to a
//! plain length-and-checksum frame:
//!
//! - The head has a check of its own. Without it, one flipped bit in a length makes a record in the middle seem to
//!   reach into the zeros at the end, and everything behind it would be cut as torn.
//! - The sequence stands in the frame. A lost or doubled block of whole frames shows as a gap.
//!
//! A write whose blocks reached the disk out of order can look damaged. That errs on the safe side.

use std::ops::Range;

/// Ends every frame; reserved space never holds it.
const END: u8 = 0xA5;
/// Length, sequence, head check, payload check.
const HEAD: usize = 20;
/// Bytes that a frame adds to its payload.
pub(super) const OVERHEAD: u64 = HEAD as u64 + 1;

/// Puts `payload` in a frame.
pub(super) fn encode(sequence: u64, payload: &[u8]) -> Result<Vec<u8>, TooLong> {
    let length = u32::try_from(payload.len()).map_err(|_| TooLong {
        length: payload.len(),
    })?;
    let mut frame = Vec::with_capacity(HEAD + payload.len() + 1);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&sequence.to_le_bytes());
    let head_check = crc32c::crc32c(&frame);
    frame.extend_from_slice(&head_check.to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c_append(head_check, payload).to_le_bytes());
    frame.extend_from_slice(payload);
    frame.push(END);
    Ok(frame)
}

/// A payload whose length does not fit the frame.
#[derive(Debug)]
pub(super) struct TooLong {
    pub(super) length: usize,
}

/// One whole frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) sequence: u64,
    /// Where the payload lies in the bytes that were read.
    pub(super) payload: Range<usize>,
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// The whole frames, up to the first that is not.
    pub(super) frames: Vec<Frame>,
    /// Where the last whole frame ends.
    pub(super) end: usize,
    pub(super) tail: Tail,
}

/// What stands behind the last whole frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Reserved zeros, or nothing.
    Clean,
    /// The beginning of a write that was never confirmed.
    Torn,
    /// Something that no crash of ours leaves behind.
    Damaged(&'static str),
}

/// Reads the frames of a whole file.
pub(super) fn scan(bytes: &[u8]) -> Scan {
    let mut frames = Vec::new();
    let mut end = 0;
    loop {
        match next(bytes, end) {
            Next::Whole(frame) => {
                end = frame.payload.end + 1;
                frames.push(frame);
            }
            Next::End(tail) => return Scan { frames, end, tail },
        }
    }
}

enum Next {
    Whole(Frame),
    End(Tail),
}

fn next(bytes: &[u8], start: usize) -> Next {
    let rest = &bytes[start..];
    if is_zero(rest) {
        return Next::End(Tail::Clean);
    }
    let Some((head, body)) = rest.split_at_checked(HEAD) else {
        return Next::End(Tail::Torn);
    };
    let Some(head) = Head::decode(head) else {
        return Next::End(torn_if_zero(
            body,
            "the head of a record does not match its checksum",
        ));
    };
    let Some((payload, after)) = body.split_at_checked(head.length) else {
        return Next::End(Tail::Torn);
    };
    match after.split_first() {
        None => Next::End(Tail::Torn),
        Some((0, beyond)) => Next::End(torn_if_zero(
            beyond,
            "a record without its end stands before others",
        )),
        Some((&END, _)) if crc32c::crc32c_append(head.check, payload) == head.payload_check => {
            let from = start + HEAD;
            Next::Whole(Frame {
                sequence: head.sequence,
                payload: from..from + head.length,
            })
        }
        Some((&END, _)) => Next::End(Tail::Damaged("a whole record does not match its checksum")),
        Some(_) => Next::End(Tail::Damaged("a record ends with the wrong byte")),
    }
}

fn torn_if_zero(rest: &[u8], damage: &'static str) -> Tail {
    if is_zero(rest) {
        Tail::Torn
    } else {
        Tail::Damaged(damage)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Compared in blocks: reserved space is a megabyte, and byte by byte a debug build takes its time.
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|block| *block == ZEROS[..block.len()])
}

struct Head {
    length: usize,
    sequence: u64,
    check: u32,
    payload_check: u32,
}

impl Head {
    fn decode(head: &[u8]) -> Option<Self> {
        let (length, rest) = head.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (check, rest) = rest.split_first_chunk::<4>()?;
        let (payload_check, _) = rest.split_first_chunk::<4>()?;
        let check = u32::from_le_bytes(*check);
        (crc32c::crc32c(&head[..12]) == check).then_some(Self {
            length: usize::try_from(u32::from_le_bytes(*length)).ok()?,
            sequence: u64::from_le_bytes(*sequence),
            check,
            payload_check: u32::from_le_bytes(*payload_check),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for (sequence, payload) in [(0, "header"), (1, "first"), (2, ""), (3, "the third")] {
            bytes.extend(encode(sequence, payload.as_bytes()).expect("short"));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_whole_file_reads_back() {
        let (bytes, _) = file();
        let scan = scan(&bytes);
        let payloads: Vec<_> = scan
            .frames
            .iter()
            .map(|f| &bytes[f.payload.clone()])
            .collect();
        assert_eq!(payloads, [&b"header"[..], b"first", b"", b"the third"]);
        assert_eq!(scan.tail, Tail::Clean);
        assert_eq!(scan.end, bytes.len());
    }

    #[test]
    fn cut_anywhere_a_file_holds_the_records_before_the_cut() {
        let (bytes, ends) = file();
        for cut in 0..bytes.len() {
            for zeros in [0, 1, 64] {
                let mut torn = bytes[..cut].to_vec();
                torn.resize(cut + zeros, 0);
                let scan = scan(&torn);
                let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
                assert_eq!(
                    scan.frames.len(),
                    whole,
                    "cut at {cut} with {zeros} zeros behind"
                );
                assert!(
                    !matches!(scan.tail, Tail::Damaged(_)),
                    "cut at {cut}: {:?}",
                    scan.tail
                );
            }
        }
    }

    #[test]
    fn every_changed_byte_of_a_whole_file_is_found() {
        let (bytes, _) = file();
        let last_end = bytes.len() - 1;
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xFF, bytes[at]] {
                if flip == 0 {
                    continue;
                }
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                changed.extend([0; 64]);
                let tail = scan(&changed).tail;
                if at == last_end && changed[at] == 0 {
                    assert_eq!(
                        tail,
                        Tail::Torn,
                        "the last end byte zero is what a torn write looks like"
                    );
                } else {
                    assert!(
                        matches!(tail, Tail::Damaged(_)),
                        "byte {at} ^ {flip:#x}: {tail:?}"
                    );
                }
            }
        }
    }
}
