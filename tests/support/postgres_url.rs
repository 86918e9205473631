//! Where the tests' PostgreSQL is.

use std::io::Write;

/// `TEST_POSTGRES_URL`. Without it the calling test is not run, and says so where it is seen.
pub fn postgres_url() -> Option<String> {
    let found = std::env::var("TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty());
    if found.is_none() {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // what `println!` writes is not shown of a test that passes
        let _ = writeln!(std::io::stderr(), "skipped: {test}: TEST_POSTGRES_URL is not set");
    }
    found
}
