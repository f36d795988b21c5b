//! Terminal output as HTML: what programs print with colours, line by line.
//!
//! ECMA-48's byte classes decide where a sequence ends (intermediates
//! 0x20-0x2F, finals 0x40-0x7E), whatever it means; of all sequences only the
//! selection of colours and `ESC c` do something. What stays true:
//!
//! - every line is whole HTML of its own: escaped, and with its spans closed;
//! - the lines, and where they end, do not depend on how the bytes were cut
//!   into pieces;
//! - nothing grows without a bound: a line is broken after [`LONGEST`] bytes,
//!   and a sequence that does not end is given up.

use anstyle_parse::state::{Action, State, state_change};

/// Bytes of text after which a line is broken.
pub const LONGEST: usize = 16 << 10;
/// Bytes of a sequence of parameters after which it is none.
const SEQUENCE: usize = 256;
/// Bytes of a string (a title, a link) after which it is none.
const STRING: usize = 4096;
/// An unfinished sequence at the end is told of from here on.
const TOLD: usize = 20;
/// What stands for a sequence that was given up.
const TOO_LONG: &str = "<b>ESCAPE-TOO-LONG</b>";

/// How text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// 0-7, and 8-15 for the bright ones.
    foreground: Option<u8>,
    background: Option<u8>,
    bold: bool,
}

const NAMES: [&str; 8] = [
    "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
];

impl Style {
    /// Applies the parameters of an SGR sequence: all of them, or none where
    /// one is unknown.
    fn select(self, parameters: &[u8]) -> Self {
        let text = std::str::from_utf8(parameters).unwrap_or("?");
        let mut codes = text.split(';').map(|code| match code {
            "" => Some(0),
            code => code.parse::<u8>().ok(),
        });
        let mut style = self;
        while let Some(code) = codes.next() {
            match code {
                Some(0) => style = Self::default(),
                Some(1) => style.bold = true,
                Some(22) => style.bold = false,
                Some(3 | 4 | 7 | 23 | 24 | 27) => (),
                Some(code @ 30..=37) => style.foreground = Some(code - 30),
                Some(39) => style.foreground = None,
                Some(code @ 40..=47) => style.background = Some(code - 40),
                Some(49) => style.background = None,
                Some(code @ 90..=97) => style.foreground = Some(code - 90 + 8),
                Some(code @ 100..=107) => style.background = Some(code - 100),
                // A colour of the first sixteen by its number.
                Some(code @ (38 | 48)) => match (codes.next(), codes.next()) {
                    (Some(Some(5)), Some(Some(colour @ 0..=15))) if code == 38 => {
                        style.foreground = Some(colour);
                    }
                    (Some(Some(5)), Some(Some(colour @ 0..=15))) => {
                        style.background = Some(colour % 8);
                    }
                    _ => return self,
                },
                _ => return self,
            }
        }
        style
    }

    /// Returns the sequence that sets a terminal to this style.
    pub fn sequence(self) -> String {
        let mut codes = vec![0];
        codes.extend(self.foreground.map(|colour| match colour {
            0..8 => 30 + colour,
            bright => 90 + bright - 8,
        }));
        codes.extend(self.background.map(|colour| 40 + colour));
        codes.extend(self.bold.then_some(1));
        let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
        format!("\x1b[{}m", codes.join(";"))
    }

    /// The classes of the style sheet; empty for plain text.
    fn classes(self) -> String {
        let mut classes = Vec::new();
        let name = |colour: u8| NAMES[usize::from(colour % 8)];
        if let Some(colour) = self.background {
            classes.push(format!("bg-{}", name(colour)));
        }
        match (self.foreground, self.bold) {
            (Some(colour), false) if colour < 8 => classes.push(format!("fg-{}", name(colour))),
            (Some(colour), _) => classes.push(format!("fg-bright-{}", name(colour))),
            (None, true) => classes.push("fg-bright-white".into()),
            (None, false) => (),
        }
        if self.bold {
            classes.push("bold".into());
        }
        classes.join(" ")
    }
}

/// Takes what a terminal would show.
pub trait Screen {
    /// Some text without control characters but tabs; not always UTF-8.
    fn text(&mut self, style: Style, text: &[u8]);
    /// A sequence had no end.
    fn too_long(&mut self, style: Style);
    /// The line is written again from its beginning.
    fn rewind(&mut self);
    /// The line ends; the next byte read is that number `at` of this call.
    fn line(&mut self, at: usize, next: Mark);
}

/// Where a line begins: all that is needed to go on from there. `None` in the
/// middle of a sequence.
pub type Mark = Option<Style>;

/// Reads bytes as a terminal does.
#[derive(Clone, Debug, Default)]
pub struct Terminal {
    state: State,
    style: Style,
    /// Parameters of the sequence that is being read.
    parameters: Vec<u8>,
    /// They hold something SGR has not.
    private: bool,
    /// Bytes of the sequence so far.
    sequence: usize,
    /// Bytes of text in this line.
    width: usize,
    /// A carriage return came, and nothing after it yet.
    returned: bool,
    /// The beginning of a character.
    held: Vec<u8>,
}

impl Terminal {
    /// Goes on from a mark.
    pub fn at(style: Style) -> Self {
        Self {
            style,
            ..Self::default()
        }
    }

    /// Reads some bytes.
    pub fn feed(&mut self, bytes: &[u8], screen: &mut impl Screen) {
        let mut at = 0;
        while at < bytes.len() {
            if !self.held.is_empty() {
                at = self.complete(bytes, at, screen);
                continue;
            }
            let byte = bytes[at];
            if self.state == State::Ground && (byte >= 0x20 || byte == b'\t') && byte != 0x7f {
                at = self.text(bytes, at, screen);
                continue;
            }
            at += 1;
            self.step(byte, at, screen);
        }
    }

    /// Ends the text: what was begun is given up.
    pub fn finish(&mut self, screen: &mut impl Screen) {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.put(&held, None, screen);
        }
        if self.state != State::Ground && self.sequence >= TOLD {
            screen.too_long(self.style);
            self.width += 1;
        }
        self.state = State::Ground;
        self.sequence = 0;
    }

    /// Tells whether something stands in the line that has not ended.
    pub fn in_line(&self) -> bool {
        self.width > 0
    }

    /// Reads a run of text, up to a control character.
    fn text(&mut self, bytes: &[u8], from: usize, screen: &mut impl Screen) -> usize {
        let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
        let rest = &bytes[from..];
        let mut end = rest.iter().position(control).unwrap_or(rest.len());
        if end == rest.len() {
            let begun = begun_character(&rest[..end]);
            self.held.extend_from_slice(&rest[end - begun..]);
            end -= begun;
            self.put(&rest[..end], Some(from), screen);
            return bytes.len();
        }
        self.put(&rest[..end], Some(from), screen);
        from + end
    }

    /// Goes on with a character that was begun in an earlier piece.
    fn complete(&mut self, bytes: &[u8], from: usize, screen: &mut impl Screen) -> usize {
        let mut at = from;
        while at < bytes.len() && begun_character(&self.held) == self.held.len() {
            if bytes[at] & 0xc0 != 0x80 {
                break;
            }
            self.held.push(bytes[at]);
            at += 1;
        }
        let broken = at < bytes.len();
        if broken || begun_character(&self.held) == 0 {
            let held = std::mem::take(&mut self.held);
            self.put(&held, None, screen);
        }
        at
    }

    /// Puts text on the screen, in lines that are not too long. It stands at
    /// number `at` of this call, or began in an earlier one.
    fn put(&mut self, mut text: &[u8], mut at: Option<usize>, screen: &mut impl Screen) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.returned) {
            screen.rewind();
            self.width = 0;
        }
        while self.width + text.len() > LONGEST {
            let mut room = LONGEST.saturating_sub(self.width).min(text.len());
            while room < text.len() && text[room] & 0xc0 == 0x80 {
                room += 1;
            }
            if room > 0 {
                screen.text(self.style, &text[..room]);
            }
            text = &text[room..];
            at = at.map(|at| at + room);
            self.width = 0;
            screen.line(at.unwrap_or(0), at.map(|_| self.style));
        }
        if !text.is_empty() {
            screen.text(self.style, text);
            self.width += text.len();
        }
    }

    /// Reads a byte that is no text.
    fn step(&mut self, byte: u8, at: usize, screen: &mut impl Screen) {
        // In a string a new line means that its end was forgotten.
        let string = matches!(
            self.state,
            State::OscString
                | State::SosPmApcString
                | State::DcsPassthrough
                | State::DcsIgnore
                | State::DcsEntry
                | State::DcsParam
                | State::DcsIntermediate
        );
        if string && byte == b'\n' {
            self.give_up(screen);
        }
        // Characters of more bytes in a sequence are passed over with it.
        let (next, action) = match byte {
            0x80.. => (State::Anywhere, Action::Ignore),
            byte => state_change(self.state, byte),
        };
        match action {
            Action::Execute => self.control(byte, at, screen),
            Action::Param => self.parameters.push(byte),
            Action::Collect => self.private = true,
            Action::CsiDispatch if byte == b'm' && !self.private => {
                self.style = self.style.select(&self.parameters);
            }
            Action::EscDispatch if byte == b'c' && self.sequence == 1 => {
                self.style = Style::default();
            }
            _ => (),
        }
        if next == State::Anywhere {
            self.sequence += usize::from(self.state != State::Ground);
        } else {
            if next == State::Escape {
                self.parameters.clear();
                self.private = false;
                self.sequence = 0;
            }
            self.sequence += 1;
            self.state = next;
        }
        let bound = if string { STRING } else { SEQUENCE };
        if self.state == State::Ground {
            self.sequence = 0;
        } else if self.sequence > bound {
            self.give_up(screen);
        }
    }

    fn give_up(&mut self, screen: &mut impl Screen) {
        self.state = State::Ground;
        if self.sequence >= TOLD {
            if std::mem::take(&mut self.returned) {
                screen.rewind();
                self.width = 0;
            }
            screen.too_long(self.style);
            self.width += 1;
        }
        self.sequence = 0;
    }

    fn control(&mut self, byte: u8, at: usize, screen: &mut impl Screen) {
        match byte {
            b'\n' => {
                self.returned = false;
                self.width = 0;
                let ground = self.state == State::Ground;
                screen.line(at, ground.then_some(self.style));
            }
            b'\r' => self.returned = true,
            _ => (),
        }
    }
}

/// Returns how many bytes at the end begin a character without ending it.
fn begun_character(text: &[u8]) -> usize {
    for back in 1..=text.len().min(3) {
        let byte = text[text.len() - back];
        let needs = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 0,
        };
        if needs > back {
            return back;
        }
        if byte & 0xc0 != 0x80 {
            return 0;
        }
    }
    0
}

/// The lines as HTML.
#[derive(Debug, Default)]
pub struct Html {
    /// The line that has not ended.
    line: String,
    /// The style of the span that is open in it.
    shown: Style,
    lines: Vec<String>,
}

impl Html {
    /// Takes the lines that have ended.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Returns the line that has not ended, as it is.
    pub fn begun(&self) -> String {
        let mut line = self.line.clone();
        if self.shown != Style::default() {
            line.push_str("</span>");
        }
        line
    }

    fn show(&mut self, style: Style) {
        if style == self.shown {
            return;
        }
        if self.shown != Style::default() {
            self.line.push_str("</span>");
        }
        if style != Style::default() {
            self.line
                .push_str(&format!("<span class='{}'>", style.classes()));
        }
        self.shown = style;
    }
}

impl Screen for Html {
    fn text(&mut self, style: Style, text: &[u8]) {
        self.show(style);
        for character in String::from_utf8_lossy(text).chars() {
            match character {
                '&' => self.line.push_str("&amp;"),
                '<' => self.line.push_str("&lt;"),
                '>' => self.line.push_str("&gt;"),
                '"' => self.line.push_str("&quot;"),
                '\'' => self.line.push_str("&#39;"),
                // These turn the direction of the text, or hide in it.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{80}'..='\u{9f}' => {
                    self.line.push('\u{fffd}');
                }
                other => self.line.push(other),
            }
        }
    }

    fn too_long(&mut self, style: Style) {
        self.show(style);
        self.line.push_str(TOO_LONG);
    }

    fn rewind(&mut self) {
        self.line.clear();
        self.shown = Style::default();
    }

    fn line(&mut self, _: usize, _: Mark) {
        self.show(Style::default());
        self.lines.push(std::mem::take(&mut self.line));
    }
}

/// The lines without any looks, for those who search.
#[derive(Debug, Default)]
pub struct Plain {
    line: Vec<u8>,
    pub lines: Vec<Vec<u8>>,
}

impl Screen for Plain {
    fn text(&mut self, _: Style, text: &[u8]) {
        self.line.extend_from_slice(text);
    }

    fn too_long(&mut self, _: Style) {}

    fn rewind(&mut self) {
        self.line.clear();
    }

    fn line(&mut self, _: usize, _: Mark) {
        self.lines.push(std::mem::take(&mut self.line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn html_of(pieces: &[&[u8]]) -> String {
        let (mut terminal, mut html) = (Terminal::default(), Html::default());
        for piece in pieces {
            terminal.feed(piece, &mut html);
        }
        terminal.finish(&mut html);
        let mut lines = html.take();
        lines.push(html.begun());
        lines.join("\n")
    }

    fn html(text: &str) -> String {
        html_of(&[text.as_bytes()])
    }

    #[test]
    fn the_ancestors_strings() {
        assert_eq!(
            html("TEST-\x1b[1;31mOUTPUT\x1b[m-1"),
            "TEST-<span class='fg-bright-red bold'>OUTPUT</span>-1"
        );
        assert_eq!(html("<&"), "&lt;&amp;");
    }

    #[test]
    fn colours_are_classes() {
        for (codes, classes) in [
            ("31", "fg-red"),
            ("1", "fg-bright-white bold"),
            ("97", "fg-bright-white"),
            ("44", "bg-blue"),
            ("37;41", "bg-red fg-white"),
            ("1;32;40", "bg-black fg-bright-green bold"),
            ("38;5;9", "fg-bright-red"),
            ("48;5;2", "bg-green"),
            ("3;4;7;33", "fg-yellow"),
        ] {
            let wanted = format!("<span class='{classes}'>x</span>");
            assert_eq!(html(&format!("\x1b[{codes}mx")), wanted, "{codes}");
        }
        for codes in ["", "0", "31;0", "31;39", "1;22", "41;49"] {
            assert_eq!(html(&format!("\x1b[{codes}mx")), "x", "{codes}");
        }
        // As a whole, or not at all.
        for codes in [
            "31;99",
            "5;31",
            "999;31",
            "38;5;200;31",
            "38;2;1;2;3",
            "?31",
            "31:1",
        ] {
            assert_eq!(html(&format!("\x1b[{codes}mx")), "x", "{codes}");
        }
        assert_eq!(html("\x1b[31ma\x1bcb"), "<span class='fg-red'>a</span>b");
    }

    #[test]
    fn a_sequence_swallows_nothing_after_it() {
        for sequence in [
            "\x1b[K",
            "\x1b[2J",
            "\x1b[1;2H",
            "\x1b[?25l",
            "\x1b(B",
            "\x1b[ q",
            "\x1b[!p",
            "\x1bM",
            "\x1b]0;title\x07",
            "\x1b]8;;http://x\x1b\\",
            "\x1bPq\x1b\\",
            "\x1b_x\x1b\\",
            "\x1b[1@",
            "\x1b[3O",
            "\x1b#8",
        ] {
            assert_eq!(html(&format!("a{sequence}b")), "ab", "{sequence:?}");
        }
    }

    #[test]
    fn styles_go_over_lines_and_lines_are_whole() {
        assert_eq!(
            html("\x1b[32ma\nb\x1b[0m\nc"),
            "<span class='fg-green'>a</span>\n<span class='fg-green'>b</span>\nc"
        );
    }

    #[test]
    fn a_line_written_again_is_shown_once() {
        assert_eq!(html("10%\r50%\r100%\ndone\r\nx\r"), "100%\ndone\nx");
        assert_eq!(
            html("\x1b[31mred\rplain\x1b[m"),
            "<span class='fg-red'>plain</span>"
        );
    }

    #[test]
    fn what_does_not_end_is_given_up() {
        assert_eq!(html("a\x1b[1;2"), "a");
        assert_eq!(
            html(&format!("a\x1b[{}", "1;".repeat(15))),
            format!("a{TOO_LONG}")
        );
        let long = format!("a\x1b[{}mb", "1;".repeat(200));
        assert!(html(&long).starts_with(&format!("a{TOO_LONG}")));
        // The end of a string was forgotten: the log goes on.
        assert_eq!(html("\x1b]0;ti\nnext"), "\nnext");
        let broken = html_of(&["x".repeat(LONGEST * 2 + 5).as_bytes()]);
        assert_eq!(
            broken.lines().map(str::len).collect::<Vec<_>>(),
            [LONGEST, LONGEST, 5]
        );
    }

    #[test]
    fn what_is_not_text_is_shown_as_such() {
        assert_eq!(html_of(&[b"a\xffb\xc3"]), "a\u{fffd}b\u{fffd}");
        assert_eq!(html("\u{202e}x\0\x08\ty"), "\u{fffd}x\ty");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in prop::collection::vec(prop::sample::select(
                b"ab<\n\r\t\x1b[];1m3K\\P\xc3\xa9\xe2\x82\xacc\x07".to_vec()), 0..80),
            cut in prop::collection::vec(0usize..80, 0..6),
        ) {
            let mut cuts: Vec<usize> = cut.iter().map(|at| at % (text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let (whole, parts) = (html_of(&[&text]), html_of(&pieces));
            prop_assert_eq!(&whole, &parts);
            // Spans are closed in their line, and nothing else is a tag.
            for line in whole.lines() {
                let tags = line.matches("<span class='").count();
                prop_assert_eq!(tags, line.matches("</span>").count());
                let marks = line.matches(TOO_LONG).count();
                prop_assert_eq!(line.matches('<').count(), tags * 2 + marks * 2);
            }
        }
    }
}
