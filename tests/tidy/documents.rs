//! Rules of the documents: length of the README, the form of decisions, links, words.

use std::{fs, path::Path};

use crate::{demand_none, files, files_with_extension, root, shown};

const README_LINES_MAX: usize = 120;
const RECIPES_MAX: usize = 25;

/// Marks of the places where the project is made. They mean nothing to a reader.
const FOREIGN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tmp/", "plan"),
    concat!("sub", "agent"),
    concat!("a helper", " session"),
    concat!("this session", " of"),
    concat!("clau", "de"),
    concat!("anthro", "pic"),
    concat!("language", " model"),
];

#[test]
fn the_readme_is_short() {
    let text = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let lines = text.lines().count();
    assert!(lines <= README_LINES_MAX, "the README has {lines} lines, {README_LINES_MAX} are allowed");
}

#[test]
fn the_justfile_stays_small_enough_to_read() {
    let text = fs::read_to_string(root().join("justfile")).expect("there is a justfile");
    let heads = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    let heads = heads.filter(|line| line.contains(':') && !line.contains(":="));
    let names: Vec<&str> = heads.filter_map(|line| line.split([' ', ':']).next()).collect();
    assert!((1..=RECIPES_MAX).contains(&names.len()), "{} recipes, {RECIPES_MAX} allowed", names.len());
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name), "two recipes are called {name}");
    }
}

#[test]
fn every_decision_has_its_three_parts() {
    let mut breaches = Vec::new();
    let mut decisions = 0;
    for path in files(&root().join("docs/adr")) {
        decisions += 1;
        let text = fs::read_to_string(&path).expect("a decision can be read");
        for part in ["## Context", "## Decision", "## What we gave up"] {
            if !text.lines().any(|line| line == part) {
                breaches.push(format!("{}: no \"{part}\"", shown(&path)));
            }
        }
        let name = path.file_name().expect("a decision has a name").to_string_lossy().into_owned();
        let numbered =
            name.len() > 5 && name[..4].bytes().all(|byte| byte.is_ascii_digit()) && &name[4..5] == "-";
        if !numbered {
            breaches.push(format!("{}: the name does not start with four digits and a dash", shown(&path)));
        }
    }
    assert!(decisions > 0, "docs/adr holds no decision");
    demand_none("an ADR says what was the case, what was decided, and what was given up", &breaches);
}

/// The targets of `[text](target)` in a line, outside of code spans.
fn link_targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find("](") {
        let before = &rest[..start];
        rest = &rest[start + 2..];
        let Some(end) = rest.find(')') else { break };
        if before.matches('`').count().is_multiple_of(2) {
            found.push(&rest[..end]);
        }
        rest = &rest[end..];
    }
    found
}

/// The anchor that a heading gets: lower case, words joined by dashes, signs dropped.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|sign| sign.is_alphanumeric() || [' ', '-', '_'].contains(sign))
        .map(|sign| if sign == ' ' { '-' } else { sign })
        .collect()
}

fn has_anchor(path: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| anchor(line.trim_start_matches('#')) == wanted)
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut breaches = Vec::new();
    for path in files_with_extension("md") {
        let text = fs::read_to_string(&path).expect("a document can be read");
        let mut in_code = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            for target in link_targets(line) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
                let dir = path.parent().expect("a document has a directory");
                let goal = if file.is_empty() { path.clone() } else { dir.join(file) };
                if !goal.exists() || (!fragment.is_empty() && !has_anchor(&goal, fragment)) {
                    breaches.push(format!("{}:{}: {target}", shown(&path), number + 1));
                }
            }
        }
    }
    demand_none("a link leads nowhere", &breaches);
}

#[test]
fn nothing_speaks_of_the_place_where_it_was_made() {
    const TEXT: [&str; 12] =
        ["rs", "md", "toml", "proto", "sh", "py", "yml", "yaml", "json", "txt", "snap", "lock"];
    let mut breaches = Vec::new();
    for path in files(&root()) {
        let extension =
            path.extension().map(|found| found.to_string_lossy().into_owned()).unwrap_or_default();
        let plain = extension.is_empty() || TEXT.contains(&extension.as_str());
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if !plain {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for word in FOREIGN.iter().filter(|word| lower.contains(**word)) {
                breaches.push(format!("{}:{}: {word}", shown(&path), number + 1));
            }
        }
    }
    demand_none("the repository speaks of the product only", &breaches);
}

#[test]
fn links_are_found_and_code_spans_are_not() {
    assert_eq!(link_targets("see [a](b.md) and [c](d.md#e), not `[x](y)`"), ["b.md", "d.md#e"]);
    assert_eq!(anchor(" Exit codes: what & why"), "exit-codes-what--why");
}
