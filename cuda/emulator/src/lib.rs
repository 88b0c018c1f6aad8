//! A software GPU, for tests on machines without one. The CUDA driver's interface, cublasLt's, and the
//! project's own kernels, compiled for the host: [`load`] puts them where the real libraries are looked
//! for. It is there to show that results are right, threads meet at their barriers and memory is
//! neither overrun nor read before it is written; it says nothing about speed.
#![expect(
    unsafe_code,
    reason = "the libraries are loaded into the process; their initialisers only fill a table"
)]

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// What CUDA calls of this process go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provided {
    /// A GPU of the machine.
    Hardware,
    /// The software GPU.
    Software,
    /// Neither, and why.
    Nothing(String),
}

/// Where the libraries are, for `LD_LIBRARY_PATH` of a process to be started; `None` where they could not
/// be built.
pub fn library_folder() -> Option<&'static Path> {
    let folder = Path::new(env!("SOFTWARE_GPU"));
    (!folder.as_os_str().is_empty()).then_some(folder)
}

/// Makes sure that there is a GPU: the machine's, or else the software one. To be called before
/// anything of CUDA is. Says once, on standard error, what it came to.
pub fn load() -> Provided {
    static LOADED: OnceLock<Provided> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let provided = load_once();
            match &provided {
                Provided::Hardware => eprintln!("tests run on this machine's GPU"),
                Provided::Software => eprintln!("tests run on the software GPU"),
                Provided::Nothing(why) => eprintln!("NOT TESTED, no GPU: {why}"),
            }
            provided
        })
        .clone()
}

fn load_once() -> Provided {
    if Path::new("/dev/nvidiactl").exists() {
        return Provided::Hardware;
    }
    let Some(folder) = library_folder() else {
        return Provided::Nothing("no C++ compiler to build the software one with".to_owned());
    };
    for name in ["libcuda.so", "libcublasLt.so"] {
        let path: PathBuf = folder.join(name);
        // SAFETY: our own libraries, whose initialisers only fill a table of kernels.
        match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
            // Stays loaded: whoever asks for a library of that name from now on gets this one.
            Ok(library) => std::mem::forget(library),
            Err(error) => return Provided::Nothing(format!("{}: {error}", path.display())),
        }
    }
    Provided::Software
}
