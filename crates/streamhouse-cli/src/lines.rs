//! Lines out of a stream of bytes, without copying them and without holding more than one chunk and one line.

use bytes::{Bytes, BytesMut};

/// Longest line, in bytes: no topic may allow a bigger batch.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 20;

/// A line that is longer than any batch may be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is longer than {LINE_BYTES_MAX} bytes")]
pub(crate) struct LineTooLong {
    /// Its number, from 1.
    pub(crate) number: u64,
}

/// Cuts chunks of bytes into lines. A line ends with `\n`, which is not part of it; every other byte is.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    rest: BytesMut,
    lines: u64,
}

impl LineSplitter {
    /// Takes the next chunk and appends the lines that are complete now to `lines`.
    ///
    /// # Errors
    /// When a line is too long. The splitter is of no use afterwards.
    pub(crate) fn push(&mut self, chunk: Bytes, lines: &mut Vec<Bytes>) -> Result<(), LineTooLong> {
        let Some(last) = chunk.iter().rposition(|byte| *byte == b'\n') else {
            self.rest.extend_from_slice(&chunk);
            return self.check(self.rest.len());
        };
        let mut complete = chunk.slice(..last);
        let tail = chunk.slice(last + 1..);
        if !self.rest.is_empty() {
            let first = complete.iter().position(|byte| *byte == b'\n').unwrap_or(complete.len());
            self.rest.extend_from_slice(&complete.split_to(first));
            let line = self.rest.split().freeze();
            self.accept(line, lines)?;
            if complete.is_empty() {
                self.rest.extend_from_slice(&tail);
                return self.check(tail.len());
            }
            let _newline = complete.split_to(1);
        }
        while let Some(end) = complete.iter().position(|byte| *byte == b'\n') {
            let line = complete.split_to(end);
            let _newline = complete.split_to(1);
            self.accept(line, lines)?;
        }
        self.accept(complete, lines)?;
        self.rest.extend_from_slice(&tail);
        self.check(tail.len())
    }

    /// The last line, when the input did not end with `\n`.
    pub(crate) fn finish(mut self) -> Option<Bytes> {
        (!self.rest.is_empty()).then(|| self.rest.split().freeze())
    }

    fn accept(&mut self, line: Bytes, lines: &mut Vec<Bytes>) -> Result<(), LineTooLong> {
        self.check(line.len())?;
        self.lines += 1;
        lines.push(line);
        Ok(())
    }

    fn check(&self, length: usize) -> Result<(), LineTooLong> {
        if length > LINE_BYTES_MAX { Err(LineTooLong { number: self.lines + 1 }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&str]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk.as_bytes()), &mut lines).unwrap();
        }
        lines.extend(splitter.finish());
        lines.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn lines_come_out_exactly_however_the_input_is_cut() {
        let text = "one\n\n three \r\n\nlast";
        let expected = ["one", "", " three \r", "", "last"];
        assert_eq!(split(&[text]), expected);
        for cut in 0..text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
            for second in cut..text.len() {
                assert_eq!(split(&[&text[..cut], &text[cut..second], &text[second..]]), expected);
            }
        }
    }

    #[test]
    fn a_final_newline_adds_no_line() {
        assert_eq!(split(&["a\n"]), ["a"]);
        assert_eq!(split(&["\n"]), [""]);
        assert!(split(&[]).is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused_by_its_number_before_it_fills_the_memory() {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        splitter.push(Bytes::from_static(b"short\n"), &mut lines).unwrap();
        let chunk = Bytes::from(vec![b'x'; 1 << 20]);
        let refused = (0..20).find_map(|_| splitter.push(chunk.clone(), &mut lines).err());
        assert_eq!(refused, Some(LineTooLong { number: 2 }));
        assert_eq!(lines.len(), 1);
    }
}
