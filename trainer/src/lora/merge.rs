//! `trainer merge`: a base model and an adapter folder (ours or PEFT's) become one plain checkpoint,
//! tensor by tensor, for a server or anything else that knows no adapters.

use std::path::Path;

use candle_core::{Device, Tensor};
use kernels::Matrix;
use kernels::tensor::f32_view;
use model::folder::ModelFolder;
use model::load::TensorReader;
use model::manifest::Manifest;
use model::save::{sync_folder, write_checkpoint};
use model::weights::TensorSpec;

use super::add_product;
use super::peft::AdapterFolder;
use crate::checkpoint::remove_folder;
use crate::cli::method::MergeArgs;
use crate::error::{Result, TrainError};

/// Writes `args.out`, which must not exist; beside it first, then with one rename.
pub fn merge(args: &MergeArgs) -> Result<()> {
    if args.out.exists() {
        return Err(TrainError::BadSetting {
            flag: "--out",
            found: args.out.display().to_string(),
            expected: "a folder that does not exist yet".to_string(),
        });
    }
    let folder = ModelFolder::open(&args.model)?;
    let mut adapters = AdapterFolder::read(&args.adapter)?;
    let mut config = folder.config;
    if let Some(dtype) = args.save_dtype {
        config.dtype = dtype.stored();
    }
    let mut reader = TensorReader::open(&args.model, &config)?;
    let beside = beside(&args.out)?;
    remove_folder(&beside)?;
    std::fs::create_dir_all(&beside).map_err(TrainError::io(&beside))?;
    let outcome = write_checkpoint(&beside, &config, Some(&args.model), |spec, values| {
        let (_, stored) = reader.next().expect("one tensor per spec")?;
        *values = merged(spec, stored, &mut adapters, &args.adapter)?;
        Ok::<(), TrainError>(())
    });
    outcome
        .and_then(|()| adapters.finish(&args.adapter))
        .and_then(|()| publish(&beside, &args.out))
        .inspect_err(|_| {
            // The first error is the one to tell.
            let _ = remove_folder(&beside);
        })
}

/// The finished folder gets its manifest and its name.
fn publish(beside: &Path, out: &Path) -> Result<()> {
    Manifest::write(beside)?;
    sync_folder(beside)?;
    std::fs::rename(beside, out).map_err(TrainError::io(out))?;
    match out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => Ok(sync_folder(parent)?),
        None => Ok(()),
    }
}

/// The hidden folder that becomes `out`.
fn beside(out: &Path) -> Result<std::path::PathBuf> {
    let name = out.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| TrainError::BadSetting {
        flag: "--out",
        found: out.display().to_string(),
        expected: "a path that ends in a name".to_string(),
    })?;
    // One name for all processes: the next one removes what a killed one has left.
    Ok(out.with_file_name(format!(".{name}.tmp-merge")))
}

/// W + alpha/r · B·A where the weight has an adapter, else W.
fn merged(
    spec: &TensorSpec,
    stored: Vec<f32>,
    adapters: &mut AdapterFolder,
    dir: &Path,
) -> Result<Vec<f32>> {
    if !adapters.has_target(&spec.name) {
        return Ok(stored);
    }
    let (a_RC, b_OR) = adapters.take(&spec.name, dir)?;
    let fits = matches!((a_RC.dims(), b_OR.dims(), spec.shape.as_slice()),
        ([rank, inputs], [outputs, columns], [rows, width])
            if rank == columns && outputs == rows && inputs == width);
    if !fits {
        return Err(TrainError::BadCheckpoint {
            path: dir.to_path_buf(),
            what: format!(
                "the adapter of {} has A {:?} and B {:?}, expected [r, in] and [out, r] of {:?}",
                spec.name,
                a_RC.dims(),
                b_OR.dims(),
                spec.shape
            ),
        });
    }
    let weight_OC = Tensor::from_vec(stored, spec.shape.as_slice(), &Device::Cpu)?;
    add_product(&b_OR, &Matrix::F32(a_RC), adapters.scale, &weight_OC)?;
    Ok(f32_view("merge", "weight", &weight_OC)?.to_vec())
}
