//! Telling the story in the terminal: numbered scenes, what each party does, streamed text as it comes.
//!
//! Colour only on a terminal and without `NO_COLOR`. Everything goes to standard output; a reader who has gone away ends the
//! telling, not the story.

use std::io::{IsTerminal as _, Write as _};

/// Columns that streamed text is wrapped at.
const WIDTH: usize = 92;

/// The story-teller.
#[derive(Debug)]
pub(super) struct Tell {
    colour: bool,
    scene: u32,
    column: usize,
}

/// Who acts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Operator,
    Lab,
    Agency,
    Evaluator,
    Auditor,
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Lab => "lab",
            Self::Agency => "agency",
            Self::Evaluator => "evaluator",
            Self::Auditor => "auditor",
        }
    }

    const fn colour(self) -> &'static str {
        match self {
            Self::Operator => "\x1b[37m",
            Self::Lab => "\x1b[34m",
            Self::Agency => "\x1b[32m",
            Self::Evaluator => "\x1b[36m",
            Self::Auditor => "\x1b[35m",
        }
    }
}

impl Tell {
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, scene: 0, column: 0 }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("{code}{text}\x1b[0m") } else { text.to_owned() }
    }

    fn put(text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever read along may have gone; the story goes on.
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }

    /// A plain line.
    pub(super) fn line(&self, text: &str) {
        Self::put(&format!("{text}\n"));
    }

    /// The next scene.
    pub(super) fn scene(&mut self, title: &str) {
        self.scene = self.scene.saturating_add(1);
        let title = format!("{}. {title}", self.scene);
        Self::put(&format!("\n{}\n", self.paint("\x1b[1m", &title)));
    }

    /// What somebody does.
    pub(super) fn act(&self, who: Who, text: &str) {
        let name = format!("{:>10}", who.name());
        Self::put(&format!("{}  {text}\n", self.paint(who.colour(), &name)));
    }

    /// A detail under an act.
    pub(super) fn note(&self, text: &str) {
        Self::put(&format!("            {}\n", self.paint("\x1b[2m", text)));
    }

    /// What came out as it should.
    pub(super) fn good(&self, text: &str) {
        Self::put(&format!("          {} {text}\n", self.paint("\x1b[32m", "✓")));
    }

    /// A refusal or a cut, as it should be.
    pub(super) fn cut(&self, text: &str) {
        Self::put(&format!("          {} {text}\n", self.paint("\x1b[33m", "✂")));
    }

    /// Text that streams in, wrapped at the margin.
    pub(super) fn stream(&mut self, text: &str) {
        if self.column == 0 {
            Self::put("            ");
            self.column = 12;
        }
        for word in text.split_inclusive(' ') {
            if self.column.saturating_add(word.chars().count()) > WIDTH {
                Self::put("\n            ");
                self.column = 12;
            }
            let word = word.replace('\n', " ");
            self.column = self.column.saturating_add(word.chars().count());
            Self::put(&self.paint("\x1b[2m", &word));
        }
    }

    /// Ends streamed text.
    pub(super) fn end_stream(&mut self) {
        if self.column > 0 {
            Self::put("\n");
            self.column = 0;
        }
    }
}
