//! What a mistyped name was probably meant to be.

/// The nearest of the candidates, if it is near enough to be meant; else the only one that contains what was given.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    // Names are short; a hostile one is not worth measuring.
    if given.len() > 100 {
        return None;
    }
    let measured = candidates.clone().into_iter().map(|name| (strsim::damerau_levenshtein(given, name), name));
    let (distance, name) = measured.min()?;
    if distance <= 1 + name.len().min(given.len()) / 4 {
        return Some(name);
    }
    let mut containing = candidates.into_iter().filter(|name| given.len() >= 3 && name.contains(given));
    let only = containing.next();
    containing.next().map_or(only, |_| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_is_recognised_and_another_word_is_not() {
        let names = ["incident", "rotation", "never-renews"];
        assert_eq!(nearest("incidnet", names), Some("incident"));
        assert_eq!(nearest("never_renews", names), Some("never-renews"));
        assert_eq!(nearest("renews", names), Some("never-renews"));
        assert_eq!(nearest("bundle", names), None);
        assert_eq!(nearest("e", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest(&"x".repeat(5000), names), None);
    }
}
