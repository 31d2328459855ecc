//! Puts the commit of the sources into the binary, where there is one.

use std::process::Command;

fn main() {
    // A file that is not there would have the crate built again each time.
    if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]) {
        println!("cargo:rerun-if-changed={head}");
    }
    println!("cargo:rerun-if-env-changed=STREAMHOUSE_COMMIT");
    let given = std::env::var_os("STREAMHOUSE_COMMIT").and_then(|text| text.into_string().ok());
    let commit = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=STREAMHOUSE_COMMIT={}", commit.unwrap_or_else(|| "unknown".to_owned()));
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}
