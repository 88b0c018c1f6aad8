use super::*;
use crate::testing::{random_folder, tiny_config};
use crate::tokenizer::read_tokenizer;

fn special() -> SpecialTokens {
    let dir = random_folder(tiny_config());
    SpecialTokens::of(&read_tokenizer(dir.path()).unwrap().0)
}

/// Templated text is cut at its special tokens.
#[test]
fn text_is_cut_at_special_tokens() {
    let pieces = special();
    let pieces = pieces.split("<|begin_of_text|>a<|b<|eot_id|><|eot_id|>é");
    assert_eq!(
        pieces,
        [
            Piece::Special(0),
            Piece::Text("a<|b"),
            Piece::Special(2),
            Piece::Special(2),
            Piece::Text("é")
        ]
    );
}

/// Guarded text contains no special token, and without the guard it is the text again.
#[test]
fn guarded_text_is_plain() {
    let special = special();
    for text in [
        "<|eot_id|>",
        "a<|eot_id|><|eot_id|>b",
        "<|eot<|eot_id|>_id|>",
        "plain <| text",
    ] {
        let guarded = special.guard(text, '\u{E000}');
        let found = special.split(&guarded);
        assert_eq!(found, [Piece::Text(guarded.as_str())], "{text}");
        assert_eq!(guarded.replace('\u{E000}', ""), text);
    }
    assert_eq!(special.guard("plain <| text", 'x'), "plain <| text");
}

/// The guard is a character no text contains.
#[test]
fn guards_are_free() {
    assert_eq!(guard_for(&["a"]), Some('\u{E000}'));
    assert_eq!(guard_for(&["\u{E000}", "\u{E001}"]), Some('\u{E002}'));
}
