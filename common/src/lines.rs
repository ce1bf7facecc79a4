//! Files of settings with one entry a line: lines, comments, fields.

/// What a file lists: the number of each line, from 1, and its fields. Empty lines and comments,
/// which begin with `#`, are left out.
pub fn entries(text: &[u8]) -> impl Iterator<Item = (usize, Vec<&[u8]>)> {
    let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    let lines = lines.map(|(number, line)| (number, line.trim_ascii()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
        .map(|(number, line)| (number, fields(line)))
}

/// The number of a file's last line, from 1.
pub fn last(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').count()
}

/// The fields of a line, which have blanks between them.
pub fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|field| !field.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_their_lines_numbers_and_their_fields() {
        let text = b"# a comment\n\n one\t two \r\n  # another\nthree";
        let read: Vec<_> = entries(text).collect();
        assert_eq!(read, [(3, vec![&b"one"[..], b"two"]), (5, vec![b"three"])]);
        assert_eq!((last(text), last(b""), last(b"a\n")), (5, 1, 2));
    }
}
