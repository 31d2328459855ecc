//! Whether a level of logging means anything.

use tracing_subscriber::EnvFilter;

/// What can be said of how much is logged.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Whether a level setting can be used. A word that is no level would stand for a module of that name, and nothing
/// else would be logged.
///
/// # Errors
/// With what is wrong about it.
pub fn check_level(level: &str) -> Result<(), String> {
    for part in level.split(',') {
        let word = part.rsplit_once('=').map_or(part, |(_, word)| word).trim();
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            return Err(format!("`{word}` is no level; there are {}", LEVELS.join(", ")));
        }
    }
    EnvFilter::builder().parse(level).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_means_nothing_is_found_out() {
        assert!(check_level("info,streamhouse_broker=debug").is_ok());
        assert!(check_level("WARN").is_ok());
        assert!(check_level("off,streamhouse_broker=debug").is_ok());
        assert!(check_level("info,=x=y").is_err());
        assert!(check_level("info,x[{y=info").is_err());
    }
}
