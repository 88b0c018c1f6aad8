//! From tokens to chains of sides: `20 + 5 = 25 = 5 * 5` is one chain of three.
//!
//! A chain ends at whatever cannot be part of it. Where its first or last side is only the end of a
//! sentence that went before or comes after ("she has 3 (5 + 3 = 8)", a list's bullet), that much
//! is cut off; where a side cannot be read for sure ("100/5 = 5A/5") it stays as a gap, never as a
//! guess.

use super::{
    lex::{Kind, Token},
    side::{Shape, Side, ends_operand},
};
use std::ops::Range;

/// Sides with an equals sign between each two.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// `None` where it is no arithmetic that can be read.
    pub sides: Vec<Option<Side>>,
    pub span: Range<usize>,
}

impl Chain {
    /// The same, read from `offset` on in a longer text.
    pub(super) fn moved(mut self, offset: usize) -> Chain {
        let moved = |span: &Range<usize>| span.start + offset..span.end + offset;
        self.span = moved(&self.span);
        for side in self.sides.iter_mut().flatten() {
            side.span = moved(&side.span);
        }
        self
    }
}

/// Words behind a number that change its value.
const SCALES: [&str; 8] = [
    "cent", "cents", "percent", "hundred", "thousand", "million", "billion", "dozen",
];

/// What may stand between blanks and an operand and says nothing.
const DECORATION: [char; 6] = ['$', '€', '£', '*', '_', '\\'];

/// Most words that stand for one unit ("fresh duck eggs").
const MAX_UNIT_WORDS: usize = 3;

/// The chains of a text, from left to right. Annotations are passed over.
pub(super) fn chains(text: &str, tokens: &[Token]) -> Vec<Chain> {
    let tokens: Vec<&Token> = tokens
        .iter()
        .filter(|token| token.kind != Kind::Annotation)
        .collect();
    let mut reader = Reader {
        text,
        draft: Draft::default(),
        chain: Chain::default(),
        chains: Vec::new(),
    };
    let mut at = 0;
    while at < tokens.len() {
        let next = tokens.get(at + 1).copied();
        // "3 times 4" multiplies, "3 times a day" does not.
        let is_said = matches!(tokens[at].kind, Kind::Said(_)) && !starts_operand(next);
        if is_said || tokens[at].kind == Kind::Word {
            at += reader.unit(&tokens[at..]);
        } else {
            reader.token(tokens[at], next);
            at += 1;
        }
    }
    reader.end_chain();
    reader.chains
}

struct Reader<'a> {
    text: &'a str,
    draft: Draft<'a>,
    chain: Chain,
    chains: Vec<Chain>,
}

/// The side that is being read.
#[derive(Default)]
struct Draft<'a> {
    tokens: Vec<&'a Token>,
    /// Where in `tokens` the brackets stand that are not closed yet.
    opens: Vec<usize>,
    is_loose: bool,
    /// It begins or ends within something that was not read.
    is_torn: bool,
    /// A word stands before it: "week 2".
    is_named: bool,
}

impl<'a> Reader<'a> {
    /// Takes a token and looks at the one after it.
    fn token(&mut self, token: &'a Token, next: Option<&Token>) {
        match token.kind {
            Kind::Break | Kind::Word | Kind::Annotation => {
                self.draft.is_torn |= self.goes_on_unread(token);
                self.end_chain();
            }
            Kind::Close if self.draft.opens.pop().is_none() => self.end_chain(),
            Kind::Operator(_) if !starts_operand(next) => {
                // "= 5 - y" goes on, "= 3 four-minute songs" does not.
                let last = self.draft.tokens.last();
                self.draft.is_torn |= last.is_some_and(|last| is_adjacent(self.text, last, token));
                self.end_chain();
            }
            Kind::Operator(_) if self.is_start() => match self.leading(token, next) {
                Leading::Bullet => {}
                Leading::Sign => self.operand(token),
                Leading::Torn => self.draft.is_torn = true,
            },
            Kind::Equals | Kind::Nearly => self.end_side(token),
            Kind::Open => {
                self.draft.opens.push(self.draft.tokens.len());
                self.operand(token);
            }
            Kind::Percent | Kind::Said(_) => {
                self.draft.is_loose = true;
                self.draft.tokens.push(token);
            }
            Kind::Number(ref literal) => {
                self.draft.is_loose |= literal.is_doubtful;
                self.operand(token);
            }
            Kind::Operator(_) | Kind::Close => self.draft.tokens.push(token),
        }
    }

    /// Takes what an operand begins with.
    fn operand(&mut self, token: &'a Token) {
        if self.is_start() {
            let before = self.text[..token.span.start].trim_end_matches(DECORATION);
            self.draft.is_torn |= is_torn_off(before);
            self.draft.is_named = before.trim_end_matches(' ').ends_with(char::is_alphabetic);
        }
        self.draft.tokens.push(token);
    }

    /// Whether the side goes on with something unreadable: `5x`, `6:48`, `2^3`.
    fn goes_on_unread(&self, token: &Token) -> bool {
        let Some(last) = self.draft.tokens.last() else {
            return false;
        };
        let rest = &self.text[last.span.end..];
        let mut chars = rest.chars();
        let (first, second) = (chars.next().unwrap_or(' '), chars.next().unwrap_or(' '));
        last.span.end == token.span.start
            && match first {
                '.' | ',' | ':' => second.is_ascii_digit(),
                '\\' | '/' => second.is_alphabetic(),
                _ => first.is_alphanumeric() || first == '^',
            }
    }

    /// Passes over words that are a unit, else ends the chain; returns the number of tokens taken.
    fn unit(&mut self, tokens: &[&'a Token]) -> usize {
        let is_word = |token: &&&Token| token.kind == Kind::Word;
        let num_words = 1 + tokens[1..].iter().take_while(is_word).count();
        let goes_on = tokens.get(num_words).is_some_and(|next| {
            matches!(
                next.kind,
                Kind::Operator(_) | Kind::Said(_) | Kind::Equals | Kind::Nearly
            )
        });
        let last = self.draft.tokens.last();
        let is_operand = last.is_some_and(|last| ends_operand(last));
        self.draft.is_loose |= SCALES.contains(&&self.text[tokens[0].span.clone()]);
        if is_operand && goes_on && num_words <= MAX_UNIT_WORDS {
            self.draft.is_loose = true;
        } else {
            self.end_chain();
        }
        num_words
    }

    fn is_start(&self) -> bool {
        self.draft.tokens.is_empty() && self.chain.sides.is_empty()
    }

    /// What an operator is that nothing stands before.
    fn leading(&self, operator: &Token, next: Option<&Token>) -> Leading {
        let before = &self.text[..operator.span.start];
        let is_attached = next.is_some_and(|next| next.span.start == operator.span.end);
        let line_so_far = before.trim_end_matches([' ', '\t']);
        let starts_line = line_so_far.is_empty() || line_so_far.ends_with('\n');
        let is_torn = before.ends_with(|c: char| c.is_alphanumeric() || ")]}".contains(c));
        if starts_line && !is_attached {
            Leading::Bullet
        } else if is_attached && !is_torn && (starts_line || operator.kind == Kind::Operator('-')) {
            Leading::Sign
        } else {
            Leading::Torn
        }
    }

    /// At an equals sign. What stands before a bracket that is still open is not part of this side:
    /// there one chain ends and another begins.
    fn end_side(&mut self, sign: &Token) {
        if let (Some(&first), Some(&last)) = (self.draft.opens.first(), self.draft.opens.last()) {
            let is_applied = |at: usize| matches!(self.draft.tokens[at].kind, Kind::Operator(_));
            let inner = Draft {
                is_torn: last.checked_sub(1).is_some_and(is_applied),
                tokens: self.draft.tokens.split_off(last + 1),
                is_loose: self.draft.is_loose,
                ..Draft::default()
            };
            self.draft.tokens.truncate(first);
            self.draft.opens.clear();
            self.end_chain();
            self.draft = inner;
        }
        self.push_side();
        self.draft.is_loose = sign.kind == Kind::Nearly;
        if let Some(side) = self.chain.sides.last_mut().and_then(Option::as_mut) {
            side.is_loose |= sign.kind == Kind::Nearly;
        }
    }

    /// A bracket that begins behind the last side is not part of it.
    fn end_chain(&mut self) {
        if let Some(last) = self
            .draft
            .tokens
            .last()
            .filter(|_| !self.chain.sides.is_empty())
        {
            self.draft.is_loose |= is_hedged(&self.text[last.span.end..]);
        }
        if let Some(&open) = self.draft.opens.first() {
            self.draft.tokens.truncate(open);
        }
        self.push_side();
        self.draft.is_loose = false;
        let chain = std::mem::take(&mut self.chain);
        if chain.sides.len() > 1 {
            self.chains.push(chain);
        }
    }

    fn push_side(&mut self) {
        let draft = std::mem::take(&mut self.draft);
        if let (Some(first), Some(last)) = (draft.tokens.first(), draft.tokens.last()) {
            if self.chain.span.is_empty() {
                self.chain.span.start = first.span.start;
            }
            self.chain.span.end = last.span.end;
        }
        let side = Side::read(&draft.tokens).filter(|_| !draft.is_torn);
        self.chain.sides.push(side.map(|side| Side {
            is_loose: draft.is_loose || (draft.is_named && side.shape != Shape::Calculation),
            ..side
        }));
    }
}

/// What an operator without anything before it is.
enum Leading {
    /// Of a list: to be passed over.
    Bullet,
    Sign,
    /// What it would be applied to could not be read.
    Torn,
}

/// Whether what follows is the end of something longer: `D3`, `6:00`, `√(144)`.
fn is_torn_off(before: &str) -> bool {
    let mut chars = before.chars().rev();
    let (last, second) = (chars.next().unwrap_or(' '), chars.next().unwrap_or(' '));
    match last {
        '.' | ',' | ':' => second.is_ascii_digit(),
        _ => last.is_alphanumeric() || ")]}%√^".contains(last),
    }
}

/// Whether the words behind a result say that it is not all: "2 full cycles with a remainder of 1".
fn is_hedged(rest: &str) -> bool {
    const HEDGES: [&str; 4] = ["remain", "round", "left over", "leftover"];
    const MAX_CHARS: usize = 40;
    let end = rest
        .char_indices()
        .nth(MAX_CHARS)
        .map_or(rest.len(), |(at, _)| at);
    let rest = rest[..end]
        .split(['.', '\n'])
        .next()
        .unwrap_or_default()
        .trim_start();
    let is_short_form = rest.starts_with("R ") || rest.starts_with("r ");
    is_short_form || HEDGES.iter().any(|hedge| rest.contains(hedge))
}

/// Whether nothing but blanks and decoration stands between two tokens.
fn is_adjacent(text: &str, left: &Token, right: &Token) -> bool {
    let between = &text[left.span.end..right.span.start];
    between
        .chars()
        .all(|c| c.is_whitespace() || DECORATION.contains(&c))
}

fn starts_operand(token: Option<&Token>) -> bool {
    token.is_some_and(|token| {
        matches!(
            token.kind,
            Kind::Number(_) | Kind::Open | Kind::Operator('-' | '+')
        )
    })
}
