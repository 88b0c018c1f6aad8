use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// The keys of the first line tell the format; a star line's rationale is what is learned.
#[test]
fn format_is_told_by_the_keys() {
    let star = file("{\"question\":\"q\",\"gold_answer\":\"4\",\"rationale\":\"r\"}\n\n");
    let (format, lines) = read_lines(star.path(), None).unwrap();
    assert_eq!(format, DataFormat::Star);
    let text = LineText::Question {
        question: "q".into(),
        completion: "r".into(),
    };
    assert_eq!(lines, [Line { number: 1, text }]);
    let gsm8k = file("{\"question\":\"q\",\"answer\":\"a\\u2028b #### 4\"}");
    assert_eq!(read_lines(gsm8k.path(), None).unwrap().0, DataFormat::Gsm8k);
}

/// A wrong line is an error that names file, line and what is wrong.
#[test]
fn bad_lines_are_named() {
    for (text, expected) in [
        (
            "{\"question\":\"q\",\"answer\":\"a\"}\n{\"question\":\"q\"}\n",
            "line 2: key \"answer\" is missing",
        ),
        (
            "{\"question\":\"q\",\"answer\":\" \"}\n",
            "line 1: key \"answer\" is empty",
        ),
        (
            "{\"question\":\"q\",\n",
            "line 1: not the expected JSON object",
        ),
        ("{\"a\":1}\n", "line 1: its keys are of no known format"),
        ("\n\n", "the file has no lines"),
    ] {
        let file = file(text);
        let error = read_lines(file.path(), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}

/// Documents are text, or prompt and completion joined.
#[test]
fn documents_join_prompt_and_completion() {
    let file = file("{\"text\":\"a\"}\n{\"prompt\":\"b\",\"completion\":\" c\"}\n");
    let mut documents = Vec::new();
    for_each_document(file.path(), |text| documents.push(text)).unwrap();
    assert_eq!(documents, ["a", "b c"]);
}

/// The flat store gives back what was put in.
#[test]
fn examples_round_trip() {
    let mut examples = Examples::default();
    examples.push(&[1, 2, 3], 1);
    examples.push(&[4, 5], 1);
    assert_eq!(examples.len(), 2);
    assert_eq!(examples.get(1).ids, [4, 5]);
    assert_eq!(examples.get(0).num_labels(), 2);
    assert_eq!(examples.num_inputs(), 3);
}
