//! Text for people: wrapped at the width of the terminal, bold only where there is one.

use std::io::{self, IsTerminal as _, Write};

/// A page on stdout. A reader that goes away (`| head`) is no error.
pub(super) struct Page {
    width: usize,
    bold: bool,
    text: String,
}

impl Page {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let columns = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
        // Long lines are hard to read, and a pipe has no width.
        let width = columns.unwrap_or(100).clamp(40, 100);
        let bold = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { width, bold, text: String::new() }
    }

    /// Columns.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    #[cfg(test)]
    pub(super) fn plain(width: usize) -> Self {
        Self { width, bold: false, text: String::new() }
    }

    /// Text in an ANSI colour, where the page has any.
    pub(super) fn coloured(&self, code: &str, text: &str) -> String {
        if self.bold { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn heading(&mut self, text: &str) {
        let text = self.coloured("1", text);
        self.line(&text);
    }

    pub(super) fn paragraph(&mut self, indent: usize, text: &str) {
        self.item(&" ".repeat(indent), text);
    }

    /// Wrapped text, with a mark before its first line.
    pub(super) fn item(&mut self, mark: &str, text: &str) {
        // Colour takes no width.
        let rest = " ".repeat(textwrap::core::display_width(mark));
        let options = textwrap::Options::new(self.width).initial_indent(mark).subsequent_indent(&rest);
        for line in textwrap::wrap(text, options.break_words(false)) {
            self.line(line.trim_end());
        }
    }

    pub(super) fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Columns of their own width, the last one wrapped.
    pub(super) fn table<const N: usize>(&mut self, heads: [&str; N], rows: &[[String; N]]) {
        let length = |text: &str| text.chars().count();
        let widths: Vec<usize> = (0..N)
            .map(|n| rows.iter().map(|row| length(&row[n])).chain([length(heads[n])]).max().unwrap_or(0))
            .collect();
        let before = |cells: &[&str]| -> String {
            cells[..N - 1].iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect()
        };
        self.heading(&format!("{}{}", before(&heads), heads[N - 1]));
        for row in rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.item(&before(&cells), &row[N - 1]);
        }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn print(self) {
        print(&self.text);
    }
}

/// Prints to stdout; a reader that goes away is no error.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A value as JSON on one line of stdout.
pub(super) fn print_json_line(value: &impl serde::Serialize) {
    let text = serde_json::to_string(value).expect("maps with text keys, no fallible serializers");
    print(&format!("{text}\n"));
}

/// A value as indented JSON on stdout.
pub(super) fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).expect("maps with text keys, no fallible serializers");
    print(&format!("{text}\n"));
}
