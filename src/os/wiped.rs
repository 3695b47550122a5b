//! Growing buffers that may hold a secret: the memory that they leave behind is wiped.

use zeroize::Zeroizing;

/// Appends. If a larger buffer is needed, the old one is wiped; a plain `Vec` would leave its contents in freed memory.
#[inline(never)]
pub(crate) fn append(buffer: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let needed = buffer.len().saturating_add(more.len());
    if needed > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * buffer.capacity())));
        larger.extend_from_slice(buffer);
        // The old one is wiped when it is dropped.
        *buffer = larger;
    }
    buffer.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_stands_one_after_the_other() {
        let mut buffer = Zeroizing::new(Vec::new());
        for piece in 0..=255_u8 {
            append(&mut buffer, &[piece; 100]);
        }
        assert_eq!(buffer.len(), 25_600);
        assert!(buffer.chunks(100).zip(0..=255_u8).all(|(found, piece)| found == [piece; 100]));
    }
}
