use super::*;
use tokenizers::Tokenizer;

fn trained(dir: &Path) -> (TrainedTokenizer, Tokenizer) {
    let documents: Vec<String> = (0..50)
        .map(|n| format!("Tom has {n}12 apples. He buys {n} more apples.\n#### {n}"))
        .collect();
    let made = train_tokenizer(&documents, 300, dir).unwrap();
    (
        made,
        Tokenizer::from_file(dir.join("tokenizer.json")).unwrap(),
    )
}

/// Every digit is its own token, text survives the round trip, and BOS comes first.
#[test]
fn digits_are_split_and_bos_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let (made, tokenizer) = trained(dir.path());
    let text = " Tom pays $1234.50 für 7 äpfel\n\n#### 99";
    let encoding = tokenizer.encode(text, true).unwrap();
    assert_eq!(encoding.get_ids()[0], made.special.bos);
    for token in encoding.get_tokens() {
        let digits = token.chars().filter(char::is_ascii_digit).count();
        assert!(digits == 0 || token.chars().count() == 1, "{token}");
    }
    assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), text);
    assert!(made.vocab_size <= 300);
    assert!(
        tokenizer.encode("apples", false).unwrap().len() < 6,
        "merges were learned"
    );
}

/// The same documents give the same file.
#[test]
fn training_is_deterministic() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    trained(first.path());
    trained(second.path());
    let read = |dir: &Path| std::fs::read(dir.join("tokenizer.json")).unwrap();
    assert!(read(first.path()) == read(second.path()));
}

/// A vocabulary that cannot hold the bytes is refused with the flag's name.
#[test]
fn tiny_vocabulary_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = train_tokenizer(&[], 100, dir.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("--vocab-size = 100"), "{error}");
}
