//! Just enough of Rust's grammar to count lines and to find test code.

/// Whether each line of a file belongs to tests, and whether it counts.
pub(crate) struct Lines<'a> {
    /// The lines that are code: not blank, not a comment, not under `#[cfg(test)]`.
    pub(crate) code: Vec<(usize, &'a str)>,
    /// The lines under `#[cfg(test)]`, comments apart.
    pub(crate) test_code: Vec<(usize, &'a str)>,
    /// Modules that stand in files of their own and exist for tests only: `#[cfg(test)] mod name;`.
    pub(crate) test_modules: Vec<&'a str>,
}

/// Sorts the lines of a file. Line numbers start at 1.
pub(crate) fn sort_lines(text: &str) -> Lines<'_> {
    let mut sorted = Lines { code: Vec::new(), test_code: Vec::new(), test_modules: Vec::new() };
    let mut in_block_comment = false;
    let mut in_test_item = false;
    let mut test_attribute_seen = false;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if in_block_comment {
            in_block_comment = !trimmed.contains("*/");
            continue;
        }
        if trimmed.is_empty() || trimmed.starts_with("//") {
            continue;
        }
        if trimmed.starts_with("/*") {
            in_block_comment = !trimmed.contains("*/");
            continue;
        }
        if in_test_item {
            sorted.test_code.push((number + 1, line));
            in_test_item = line != "}";
        } else if line == "#[cfg(test)]" {
            test_attribute_seen = true;
        } else if test_attribute_seen && !line.starts_with("#[") {
            test_attribute_seen = false;
            if let Some(name) = trimmed.trim_start_matches("pub(crate) ").strip_prefix("mod ")
                && let Some(name) = name.strip_suffix(';')
            {
                sorted.test_modules.push(name);
            }
            sorted.test_code.push((number + 1, line));
            in_test_item = !trimmed.ends_with(';') && !trimmed.ends_with('}');
        } else if !test_attribute_seen {
            sorted.code.push((number + 1, line));
        }
    }
    sorted
}

/// The attributes `#[allow(..)]`, `#[expect(..)]` and their inner forms, as `(line, text)`.
pub(crate) fn lint_exceptions(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim_start();
        let starts = ["allow(", "expect("].iter().any(|word| {
            trimmed.starts_with(&format!("#[{word}")) || trimmed.starts_with(&format!("#![{word}"))
        });
        if !starts {
            continue;
        }
        let mut attribute = trimmed.to_owned();
        while !attribute.contains(")]") {
            let Some((_, next)) = lines.next() else { break };
            attribute.push(' ');
            attribute.push_str(next.trim());
        }
        found.push((number + 1, attribute));
    }
    found
}

#[test]
fn code_is_told_from_comments_and_tests() {
    let text = "//! doc\n\nfn a() {}\n/* x\ny */\n#[cfg(test)]\nmod tests;\nfn b() {\n    // why\n}\n#[cfg(test)]\nmod more {\n    fn c() {}\n}\n";
    let sorted = sort_lines(text);
    assert_eq!(sorted.code.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 8, 10]);
    assert_eq!(sorted.test_code.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [7, 12, 13, 14]);
    assert_eq!(sorted.test_modules, ["tests"]);
}

#[test]
fn an_exception_is_read_over_several_lines() {
    let text = "#[expect(\n    clippy::x,\n    reason = \"because\"\n)]\nfn a() {}\n#![allow(unused)]\n";
    let found = lint_exceptions(text);
    assert_eq!(found.len(), 2);
    assert!(found[0].1.contains("because"));
    assert_eq!(found[1].0, 6);
}
