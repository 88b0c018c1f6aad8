//! Rows of a parquet file: the columns that hold texts or numbers; others are kept out.

use std::path::Path;

use ::parquet::{
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::Field,
};
use serde_json::{Map, Number, Value};

pub(super) fn rows(path: &Path) -> Result<Vec<Map<String, Value>>, String> {
    let read = || -> Result<Vec<Map<String, Value>>, ParquetError> {
        let reader = SerializedFileReader::try_from(path)?;
        let rows = reader.get_row_iter(None)?;
        rows.map(|row| Ok(row?.into_columns().into_iter().filter_map(value).collect()))
            .collect()
    };
    read().map_err(|error| {
        let advice = match &error {
            ParquetError::General(text) if text.starts_with("Disabled feature") => {
                ". Write it with snappy or without compression, as Hugging Face does"
            }
            _ => "",
        };
        format!("it cannot be read as parquet: {error}{advice}")
    })
}

fn value((name, field): (String, Field)) -> Option<(String, Value)> {
    let value = match field {
        Field::Str(text) => Value::String(text),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        // As it is printed: 0.1 in 32 bits is not 0.10000000149.
        Field::Float(number) => number.to_string().parse::<f64>().ok().and_then(finite)?,
        Field::Double(number) => finite(number)?,
        _ => return None,
    };
    Some((name, value))
}

fn finite(number: f64) -> Option<Value> {
    Number::from_f64(number).map(Value::Number)
}
