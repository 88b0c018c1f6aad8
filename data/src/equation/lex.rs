//! The pieces that equations in running text are made of: numbers, operators, brackets, equals
//! signs, and the words that may stand for a unit. What can be none of them is a [`Kind::Break`].
//!
//! Knows characters and commands (`×`, `\times`, `\frac{1}{2}`), no grammar beyond the neighbour.

use crate::{annotation, number::scan};
use std::ops::Range;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Number(Literal),
    /// One of `+ - * /`.
    Operator(char),
    /// A word in place of an operator, "20% of 50" or "1 and 1/3"; it may mean something else.
    Said(char),
    Percent,
    Open,
    Close,
    Equals,
    /// `≈` or "is": the sides are only nearly equal, or it is not sure that they are sides.
    Nearly,
    /// A word, or a unit such as `/egg`.
    Word,
    /// `<<…>>`, brackets included.
    Annotation,
    /// Something that no equation contains, a line's end among them.
    Break,
}

/// A number as it stands in a side.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    /// Without separators and needless zeros; a fraction in brackets.
    pub text: String,
    /// Digits shown after the point.
    pub num_decimals: usize,
    /// It may mean something else.
    pub is_doubtful: bool,
}

/// All tokens of a text; blanks, currency signs and decoration are left out.
pub(super) fn lex(text: &str) -> Vec<Token> {
    let mut annotations: Vec<Range<usize>> = annotation::spans(text).collect();
    annotations.reverse();
    let mut lexer = Lexer {
        text,
        at: 0,
        annotations,
        num_open_fractions: 0,
        tokens: Vec::new(),
    };
    while lexer.at < text.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Those still to come, the next one last.
    annotations: Vec<Range<usize>>,
    /// `\frac{` read and not yet closed: tells their braces from others.
    num_open_fractions: usize,
    tokens: Vec<Token>,
}

/// Commands that mean one character.
const COMMANDS: [(&str, &str); 16] = [
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("\\div", "/"),
    ("\\approx", "≈"),
    ("\\left", ""),
    ("\\right", ""),
    ("\\quad", ""),
    ("\\$", ""),
    ("\\%", "%"),
    ("\\,", ""),
    ("\\;", ""),
    ("\\!", ""),
    ("\\ ", ""),
    ("\\text{", "w"),
    ("\\mathrm{", "w"),
    ("\\textbf{", "w"),
];

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            return;
        };
        match first {
            '\n' => self.push(Kind::Break, 1),
            _ if first.is_whitespace() || matches!(first, '$' | '€' | '£') => {
                self.at += first.len_utf8();
            }
            '0'..='9' | '.' | '½' | '⅓' | '⅔' | '¼' | '¾' => self.number(first),
            '+' | '/' if !is_unit_slash(rest) => self.push(Kind::Operator(first), 1),
            '-' => self.push(Kind::Operator('-'), 1),
            '\u{2212}' => self.push(Kind::Operator('-'), first.len_utf8()),
            // Between blanks it is a minus, elsewhere it may be a range.
            '–' if rest.starts_with("– ") => self.push(Kind::Operator('-'), first.len_utf8()),
            '–' => self.push(Kind::Said('-'), first.len_utf8()),
            '*' => self.stars(rest),
            '×' | '·' => self.push(Kind::Operator('*'), first.len_utf8()),
            '÷' => self.push(Kind::Operator('/'), first.len_utf8()),
            'x' | 'X' if self.is_times(&rest[1..]) => self.push(Kind::Operator('*'), 1),
            '%' => self.push(Kind::Percent, 1),
            '(' => self.push(Kind::Open, 1),
            ')' => self.push(Kind::Close, 1),
            '=' => self.push(Kind::Equals, 1),
            '≈' => self.push(Kind::Nearly, first.len_utf8()),
            '<' => self.angle(),
            '\\' => self.command(rest),
            '}' => self.brace(rest),
            '/' => self.word(rest),
            _ if first.is_alphabetic() => self.word(rest),
            _ => self.push(Kind::Break, first.len_utf8()),
        }
    }

    fn push(&mut self, kind: Kind, len: usize) {
        let span = self.at..self.at + len;
        self.at = span.end;
        self.tokens.push(Token { kind, span });
    }

    fn number(&mut self, first: char) {
        // "28 / 1/5" is meant to divide by a fifth.
        let divides_by =
            |token: &Token| token.kind == Kind::Operator('/') && token.span.end < self.at;
        let whole_fraction = self.tokens.last().is_some_and(divides_by);
        let found = if whole_fraction {
            scan::numbers(self.text).starting_at(self.at).next()
        } else {
            scan::operand(self.text, self.at)
        };
        let found = found.filter(|found| found.span.start == self.at);
        let Some((span, value)) = found.and_then(|found| Some((found.span, found.value?))) else {
            // A dot, or digits that no number holds.
            return self.push(Kind::Break, first.len_utf8());
        };
        let shown = &self.text[span.clone()];
        let num_decimals = shown.split_once('.').map_or(0, |(_, after)| {
            after.bytes().take_while(u8::is_ascii_digit).count()
        });
        let text = match value.to_string() {
            fraction if fraction.contains('/') => format!("({fraction})"),
            decimal => decimal,
        };
        // "0730" is a time.
        let is_time = shown.len() > 1 && shown.bytes().all(|byte| byte.is_ascii_digit());
        let is_doubtful = shown.contains('/') && whole_fraction || is_time && first == '0';
        let literal = Literal {
            text,
            num_decimals,
            is_doubtful,
        };
        self.push(Kind::Number(literal), span.len());
    }

    /// `*` multiplies; several are a power between numbers (no sum of ours has one), else bold
    /// type; one at either end of something is italic type.
    fn stars(&mut self, rest: &str) {
        let len = rest.bytes().take_while(|&byte| byte == b'*').count();
        let after = &rest[len..];
        let is_operand = after.starts_with(|c: char| is_digit_or_open(c) || "$.-\\".contains(c));
        let is_type = if self.ends_operand() {
            !is_operand && !after.starts_with(|c: char| c == ' ' || c.is_alphabetic())
        } else {
            is_operand && !self.text[..self.at].ends_with(char::is_alphanumeric)
        };
        match len {
            1 if is_type => self.at += 1,
            1 => self.push(Kind::Operator('*'), 1),
            _ if self.ends_operand() && is_operand => self.push(Kind::Break, len),
            _ => self.at += len,
        }
    }

    /// "3 x 4", "3 eggs x 4", but not "x = 4" or "boxes".
    fn is_times(&self, after: &str) -> bool {
        let is_unit = self
            .tokens
            .last()
            .is_some_and(|last| last.kind == Kind::Word);
        let operand = after.trim_start_matches([' ', '$', '\\']);
        (self.ends_operand() || is_unit)
            && operand.starts_with(|c: char| is_digit_or_open(c) || c == '.')
    }

    fn ends_operand(&self) -> bool {
        let last = self.tokens.last().map(|token| &token.kind);
        matches!(last, Some(Kind::Number(_) | Kind::Close | Kind::Percent))
    }

    fn angle(&mut self) {
        match self.annotations.pop_if(|next| next.start == self.at) {
            Some(span) => self.push(Kind::Annotation, span.len()),
            None => self.push(Kind::Break, 1),
        }
    }

    fn command(&mut self, rest: &str) {
        for fraction in ["\\frac{", "\\dfrac{", "\\tfrac{"] {
            if rest.starts_with(fraction) {
                self.num_open_fractions += 1;
                // Twice, so that dividing by a fraction divides by all of it.
                self.push(Kind::Open, 0);
                return self.push(Kind::Open, fraction.len());
            }
        }
        let known = COMMANDS.iter().find(|(name, _)| rest.starts_with(name));
        let Some((name, meaning)) = known else {
            return self.push(Kind::Break, 1);
        };
        match *meaning {
            "*" => self.push(Kind::Operator('*'), name.len()),
            "/" => self.push(Kind::Operator('/'), name.len()),
            "%" => self.push(Kind::Percent, name.len()),
            "≈" => self.push(Kind::Nearly, name.len()),
            // Its content up to the brace; longer ones are no unit.
            "w" => match rest
                .bytes()
                .take(MAX_WORD_BYTES)
                .position(|byte| byte == b'}')
            {
                Some(end) => self.push(Kind::Word, end + 1),
                None => self.push(Kind::Break, name.len()),
            },
            _ => self.at += name.len(),
        }
    }

    /// `}{` divides and `}` ends a fraction; other braces end an equation.
    fn brace(&mut self, rest: &str) {
        if self.num_open_fractions == 0 {
            self.push(Kind::Break, 1);
        } else if rest.starts_with("}{") {
            self.push(Kind::Close, 1);
            self.push(Kind::Operator('/'), 0);
            self.push(Kind::Open, 1);
        } else {
            self.num_open_fractions -= 1;
            self.push(Kind::Close, 1);
            self.push(Kind::Close, 0);
        }
    }

    fn word(&mut self, rest: &str) {
        let is_part = |c: char| c.is_alphabetic() || matches!(c, '\'' | '’');
        let slash = usize::from(rest.starts_with('/'));
        let mut len = slash + word_len(&rest[slash..], is_part);
        // "hours/day", but not "total/3"
        while is_unit_slash(&rest[len..]) {
            len += 1 + word_len(&rest[len + 1..], is_part);
        }
        let word = &rest[..len];
        let kind = match word {
            "equals" => Kind::Equals,
            // "5 * 3 is 15", but not "5 is the number".
            "is" if self.ends_operand() && is_number(&rest[len..]) => Kind::Nearly,
            "of" | "times" if self.ends_operand() => Kind::Said('*'),
            "plus" if self.ends_operand() => Kind::Said('+'),
            "minus" if self.ends_operand() => Kind::Said('-'),
            "and" if self.ends_operand() && is_fraction(&rest[len..]) => Kind::Said('+'),
            // A letter alone is a variable.
            _ if word[slash..].chars().count() == 1 => Kind::Break,
            _ => Kind::Word,
        };
        self.push(kind, len);
    }
}

fn word_len(rest: &str, is_part: impl Fn(char) -> bool) -> usize {
    rest.find(|c| !is_part(c)).unwrap_or(rest.len())
}

/// A number, after blanks.
fn is_number(rest: &str) -> bool {
    let rest = rest.trim_start_matches([' ', '$', '-', '(']);
    rest.starts_with(|c: char| c.is_ascii_digit())
}

/// `1/3` or `(1/3)`, after blanks.
fn is_fraction(rest: &str) -> bool {
    let rest = rest.trim_start_matches([' ', '$', '(']);
    let after_digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let below = after_digits.strip_prefix('/');
    after_digits.len() < rest.len()
        && below.is_some_and(|below| below.starts_with(|c: char| c.is_ascii_digit()))
}

/// Longest `\text{…}` that may be a unit.
const MAX_WORD_BYTES: usize = 48;

fn is_digit_or_open(c: char) -> bool {
    c.is_ascii_digit() || c == '('
}

/// `/egg`: a unit, not a division.
fn is_unit_slash(rest: &str) -> bool {
    rest.strip_prefix('/')
        .is_some_and(|after| after.starts_with(char::is_alphabetic))
}
