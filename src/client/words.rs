//! What went wrong, in words.

use std::error::Error;

/// What went wrong, down to its cause.
pub fn words(why: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(why);
    while let Some(why) = next {
        let more = why.to_string();
        if !words.last().is_some_and(|last| last.ends_with(&more)) {
            words.push(more);
        }
        next = why.source();
    }
    words.join(": ")
}
