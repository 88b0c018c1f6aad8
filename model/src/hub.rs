//! From a `--model` argument to a folder: a local path, or `org/name[@revision]` in the local
//! Hugging Face cache.
