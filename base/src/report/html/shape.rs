//! The marks in a lane, each with its form.

/// A mark in a lane.
pub(super) struct Shape {
    pub(super) path: String,
    pub(super) class: String,
    pub(super) title: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Diamond,
    Block,
    Dot,
    Cross,
    Claim,
}

impl Form {
    /// Around the middle of a bar of height 18 whose top is at 0.
    fn path(self, x: f64) -> String {
        match self {
            Form::Diamond => format!("M{x} 2l6 7-6 7-6-7z"),
            Form::Block => format!("M{} 1h5v16h-5z", round(x - 2.5)),
            Form::Dot => format!("M{} 9a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z", round(x - 4.5)),
            Form::Cross => format!("M{} 4l10 10m0-10l-10 10", round(x - 5.0)),
            Form::Claim => format!("M{} -6h8l-4 6z", round(x - 4.0)),
        }
    }
}

/// Marks that cover each other to the pixel are one.
#[derive(Default)]
pub(super) struct Marks {
    pub(super) shapes: Vec<Shape>,
    seen: std::collections::HashSet<(i64, Form, String)>,
}

impl Marks {
    pub(super) fn add(&mut self, x: f64, form: Form, class: String, title: impl FnOnce() -> String) {
        if self.seen.insert(((x * 2.0) as i64, form, class.clone())) {
            self.shapes.push(Shape { path: form.path(x), class, title: title() });
        }
    }
}

pub(super) fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}
