//! Whether a level of logging means anything.

use tracing_subscriber::EnvFilter;

/// Whether a level setting can be used.
///
/// # Errors
/// With what is wrong about it.
pub fn check_level(level: &str) -> Result<(), String> {
    EnvFilter::builder().parse(level).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_means_nothing_is_found_out() {
        assert!(check_level("info,streamhouse_broker=debug").is_ok());
        assert!(check_level("info,=x=y").is_err());
    }
}
