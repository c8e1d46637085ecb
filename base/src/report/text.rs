//! Texts that come from proxies, providers and other people's files, made safe to show.

/// One line without control characters and without signs that reorder or hide others: those are spelt out. A NACK's
/// text could else move the cursor, or make one certificate's serial look like another's.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Bidirectional controls, zero-width signs, separators of lines, tags: what Unicode calls default ignorable or
/// bidi control, as far as it has no business in a report.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `9.4 s`, `340 ms`, `2 min 05 s`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => format!("{} min {:02} s", ms / 60_000, ms / 1000 % 60),
    }
}

/// `11 h`, `4 h 12 min`, `90 s`: lengths of cell time.
pub(super) fn span(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let s = seconds.unsigned_abs();
    let (h, m, rest) = (s / 3600, s / 60 % 60, s % 60);
    let text = match (h, m, rest) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    };
    format!("{sign}{text}")
}

/// What a cell's line says after its mark: the headline of its verdict, or why there is none.
pub(super) fn headline(cell: &crate::plan::CellReport) -> String {
    let said = match (&cell.verdict, &cell.reason) {
        (_, Some(reason)) if cell.verdict.is_none() => reason,
        (Some(verdict), _) => &verdict.headline,
        (None, _) => return "no verdict and no reason were left".to_owned(),
    };
    plain(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_fool_the_eye_is_spelt_out() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c\u{200b}d\ne"), r"a\u{1b}[2Jb\u{202e}c\u{200b}d e");
        assert_eq!(plain("Zürich → ✓ 日本"), "Zürich → ✓ 日本");
    }

    #[test]
    fn times_are_told_in_their_units() {
        assert_eq!([duration(340), duration(9_420), duration(125_000)], ["340 ms", "9.4 s", "2 min 05 s"]);
        assert_eq!([span(39_600), span(15_120), span(90), span(-5)], ["11 h", "4 h 12 min", "1 min 30 s", "-5 s"]);
    }
}
