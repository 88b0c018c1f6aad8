//! The same questions in every layout and under other names.

use std::{fs, path::PathBuf};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn auto(path: &Path) -> Result<QuestionSet, ClientError> {
    read(path, &Keys::default())
}

fn named(question: &str, answer: &str) -> Keys {
    Keys {
        question: Some(question.to_owned()),
        answer: Some(answer.to_owned()),
    }
}

/// Question texts and gold answers.
fn pairs(set: &QuestionSet) -> Vec<(String, String)> {
    set.questions
        .iter()
        .map(|it| (it.question.clone(), it.gold.to_string()))
        .collect()
}

const PLAIN: &str = concat!(
    "{\"question\": \"What is 1?\", \"answer\": \"One.\\n#### 1\"}\n",
    "{\"question\": \"What is 2?\", \"answer\": \"Two.\\n#### 2\"}\n",
);

/// GSM8K's own layout is read as ever; a column more, as GSM8K-Platinum's `cleaning_status`, and a
/// JSON array change nothing but the digest, which is that of the file.
#[test]
fn layouts_give_the_same_questions() {
    let folder = Folder::new();
    let plain = auto(&folder.file("plain.jsonl", PLAIN)).unwrap();
    let platinum = PLAIN.replace("{\"q", "{\"cleaning_status\": \"consensus\", \"q");
    let array = format!("\u{feff} [{}]", PLAIN.trim().replace('\n', ","));
    for (name, text) in [("platinum.jsonl", &platinum), ("array.json", &array)] {
        let set = auto(&folder.file(name, text)).unwrap();
        assert_eq!(set.questions, plain.questions, "{name}");
        assert_eq!(set.sha256, sha256_hex(text.as_bytes()), "{name}");
    }
    assert_eq!(plain.sha256, sha256_hex(PLAIN.as_bytes()));
}

/// SVAMP: the story, then the question; the answer is a number, whole ones written with a point too.
#[test]
fn svamp_is_known() {
    let folder = Folder::new();
    let items = "[{\"ID\": \"chal-1\", \"Body\": \"There are 87 oranges. \", \
                  \"Question\": \"How many?\", \"Equation\": \"( 87.0 - 0.0 )\", \"Answer\": 87.0, \
                  \"Type\": \"Subtraction\"},
                  {\"ID\": \"chal-2\", \"Body\": \"A dozen.\", \"Question\": \"How many?\", \
                  \"Equation\": \"12\", \"Answer\": \"12.0\", \"Type\": \"x\"},
                  {\"ID\": \"chal-3\", \"Body\": \"Half.\", \"Question\": \"How many?\", \
                  \"Equation\": \"1/2\", \"Answer\": 0.5, \"Type\": \"x\"}]";
    let set = auto(&folder.file("SVAMP.json", items)).unwrap();
    let expected = [
        ("There are 87 oranges. How many?", "87"),
        ("A dozen. How many?", "12"),
        ("Half. How many?", "0.5"),
    ];
    let expected = expected.map(|(question, gold)| (question.to_owned(), gold.to_owned()));
    assert_eq!(pairs(&set), expected);
    assert_eq!(set.questions[0].id, "chal-1");
}

/// Fields of other names are read where they are named, numbers as gold answers too.
#[test]
fn fields_can_be_named() {
    let folder = Folder::new();
    let path = folder.file(
        "other.jsonl",
        "{\"id\": 7, \"problem\": \"What is 3?\", \"final\": 3, \"answer\": \"no\"}\n",
    );
    let set = read(&path, &named("problem", "final")).unwrap();
    assert_eq!(pairs(&set), [("What is 3?".to_owned(), "3".to_owned())]);
    assert_eq!(set.questions[0].id, "7");
    let question_only = Keys {
        answer: None,
        ..named("problem", "")
    };
    let error = read(&path, &question_only).unwrap_err().to_string();
    assert!(
        error.contains("line 1") && error.contains("#### <number>"),
        "{error}"
    );
}

/// What is wrong names the place, the field and the fields that are there.
#[test]
fn mistakes_are_named() {
    let folder = Folder::new();
    let message = |text: &str, keys: &Keys| {
        let path = folder.file("bad.jsonl", text);
        read(&path, keys).unwrap_err().to_string()
    };
    let other = "{\"problem\": \"What?\", \"solution\": \"#### 1\"}\n";
    let error = message(other, &Keys::default());
    assert!(
        error.contains("line 1: there is no \"question\"; found are problem, solution."),
        "{error}"
    );
    assert!(error.contains("--question-key"), "{error}");
    let keys = named("problem", "solution");
    let second = format!("{other}\n{{\"problem\": \"Why?\", \"solution\": [1]}}\n");
    let error = message(&second, &keys);
    assert!(
        error.contains("line 3: expected \"solution\" to be a text or a number, found a list"),
        "{error}"
    );
    let no_gold = format!("{other}\n{{\"problem\": \"Why?\", \"solution\": \"x\"}}\n");
    let error = message(&no_gold, &keys);
    assert!(
        error.contains("line 3: expected \"answer\" to end in"),
        "{error}"
    );
    let error = message("[{\"Body\": 1}, {]", &Keys::default());
    assert!(
        error.contains("bad.jsonl") && error.contains("column"),
        "{error}"
    );
    let error = message("[{\"question\": \"a\"}]", &Keys::default());
    assert!(error.contains("item 1: there is no \"answer\""), "{error}");
    assert!(message("[]", &Keys::default()).contains("no questions"));
    assert!(message("", &keys).contains("no questions"));
    // A file of no known layout is left to the reader of the plain one.
    assert!(message("what?\n", &Keys::default()).contains("line 1"));
    assert!(message("what?\n", &keys).contains("line 1"));
}

/// A file as Hugging Face stores it, snappy-compressed, with columns that are not ours.
#[cfg(feature = "parquet")]
fn parquet_file(path: &Path, rows: usize) {
    use ::parquet::{
        basic::Compression,
        data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    let schema = "message schema {
        optional binary question (UTF8);
        optional binary answer (UTF8);
        optional double number;
        optional group tags (LIST) { repeated group list { optional int64 element; } }
    }";
    let schema = parse_message_type(schema).unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let file = fs::File::create(path).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, schema.into(), properties.build().into()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |text: &dyn Fn(usize) -> String| -> Vec<ByteArray> {
        (0..rows)
            .map(|row| ByteArray::from(text(row).as_str()))
            .collect()
    };
    let answer = |row| format!("So it is {row}.\n#### {row}");
    let ones = vec![1; rows];
    for values in [texts(&|row| format!("What is {row}?")), texts(&answer)] {
        let mut column = group.next_column().unwrap().unwrap();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&values, Some(&ones), None).unwrap();
        column.close().unwrap();
    }
    let numbers: Vec<f64> = (0..rows).map(|row| row as f64).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let typed = column.typed::<DoubleType>();
    typed.write_batch(&numbers, Some(&ones), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let (definitions, repetitions) = (vec![3; rows], vec![0; rows]);
    let values: Vec<i64> = (0..).take(rows).collect();
    let typed = column.typed::<Int64Type>();
    typed
        .write_batch(&values, Some(&definitions), Some(&repetitions))
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// A parquet file gives the questions that JSONL gives, and other columns are answers where they are
/// named.
#[cfg(feature = "parquet")]
#[test]
fn parquet_is_read() {
    let folder = Folder::new();
    let path = folder.0.path().join("test-00000-of-00001.parquet");
    parquet_file(&path, 300);
    let set = auto(&path).unwrap();
    let lines = (0..300).map(|row| {
        let answer = format!("So it is {row}.\n#### {row}");
        serde_json::json!({"question": format!("What is {row}?"), "answer": answer}).to_string()
    });
    let jsonl = lines.collect::<Vec<_>>().join("\n");
    let plain = auto(&folder.file("plain.jsonl", jsonl)).unwrap();
    assert_eq!(set.questions, plain.questions);
    assert_eq!(set.sha256, sha256_hex(&fs::read(&path).unwrap()));
    let numbers = read(&path, &named("question", "number")).unwrap();
    assert_eq!(numbers.questions[299].gold.to_string(), "299");
    let error = read(&path, &named("question", "tags"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("row 1: there is no \"tags\"; found are answer, number, question"),
        "{error}"
    );
    // Cut in the middle: an error, not a panic.
    let bytes = fs::read(&path).unwrap();
    for length in [4, 100, bytes.len() / 2, bytes.len() - 1] {
        let cut = folder.file("cut.parquet", &bytes[..length]);
        let error = auto(&cut).unwrap_err().to_string();
        assert!(error.contains("cannot be read as parquet"), "{error}");
    }
}

/// Without the feature the error says what to do.
#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_is_refused_with_advice() {
    let folder = Folder::new();
    let error = auto(&folder.file("test.parquet", b"PAR1...")).unwrap_err();
    assert!(error.to_string().contains("feature `parquet`"), "{error}");
}

/// A Git LFS pointer in a parquet file's place is no question file with a strange first line.
#[test]
fn what_is_no_parquet_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.parquet");
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let error = read(&path, &Keys::default()).unwrap_err().to_string();
    assert!(error.contains("starts with PAR1"), "{error}");
    assert!(error.contains("git-lfs"), "{error}");
}
