//! One GPU: its context, its stream, its kernels; memory to and fro; graphs.
#![expect(
    unsafe_code,
    reason = "the driver's own functions for what cudarc has no safe name for"
)]

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cudarc::{
    cublaslt,
    driver::{
        CudaContext, CudaFunction, CudaGraph, CudaModule, CudaSlice, CudaStream, DevicePtr,
        DevicePtrMut, DeviceRepr, ValidAsZeroBits, sys,
    },
    nvrtc::Ptx,
};

use crate::{
    error::{Error, Result, expect_room},
    product::Products,
};

/// The kernels, one image for each file of `kernels/`; empty without feature `image`.
const IMAGES: &[&[u8]] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// What the software GPU of the tests is called.
const SOFTWARE_GPU: &str = "software GPU";

/// What may lie in the GPU's memory.
pub trait Element: DeviceRepr + ValidAsZeroBits + Copy + Default + fmt::Debug + 'static {}
impl<T: DeviceRepr + ValidAsZeroBits + Copy + Default + fmt::Debug + 'static> Element for T {}

/// A GPU, ready to compute. Clones are the same GPU and the same stream.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    modules: Vec<Arc<CudaModule>>,
    functions: Mutex<HashMap<&'static str, CudaFunction>>,
    products: Products,
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device({})", self.inner.context.ordinal())
    }
}

impl Device {
    /// Opens GPU number `ordinal` and loads the kernels.
    pub fn open(ordinal: usize) -> Result<Self> {
        check_libraries()?;
        let no_device = |error: cudarc::driver::DriverError| {
            let reason = error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            Error::NoDevice { ordinal, reason }
        };
        let context = CudaContext::new(ordinal).map_err(no_device)?;
        // SAFETY: one stream is used, so that no two need to be ordered by events.
        unsafe { context.disable_event_tracking() };
        keep_freed_memory(&context)?;
        let stream = context.new_stream().map_err(Error::driver("new_stream"))?;
        let modules = load_images(&context)?;
        let products = Products::new(&stream)?;
        Ok(Self {
            inner: Arc::new(Inner {
                context,
                stream,
                modules,
                functions: Mutex::default(),
                products,
            }),
        })
    }

    /// The same GPU with a stream of its own, for work beside this one's: what one writes and another
    /// reads is to be waited for with [`Device::synchronize`].
    pub fn fork(&self) -> Result<Self> {
        let context = Arc::clone(&self.inner.context);
        let stream = context.new_stream().map_err(Error::driver("new_stream"))?;
        let products = Products::new(&stream)?;
        Ok(Self {
            inner: Arc::new(Inner {
                context,
                stream,
                modules: self.inner.modules.clone(),
                functions: Mutex::default(),
                products,
            }),
        })
    }

    /// As the driver calls it.
    pub fn name(&self) -> Result<String> {
        self.inner.context.name().map_err(Error::driver("name"))
    }

    /// Whether this is the tests' software GPU.
    pub fn is_software(&self) -> bool {
        self.name().is_ok_and(|name| name == SOFTWARE_GPU)
    }

    /// Major and minor.
    pub fn compute_capability(&self) -> Result<(i32, i32)> {
        let capability = self.inner.context.compute_capability();
        capability.map_err(Error::driver("compute_capability"))
    }

    pub fn num_multiprocessors(&self) -> Result<usize> {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let count = self.inner.context.attribute(attribute);
        Ok(count.map_err(Error::driver("multiprocessors"))?.max(1) as usize)
    }

    /// Bytes of memory that are free, and in all.
    pub fn memory(&self) -> Result<(usize, usize)> {
        let info = self.inner.context.mem_get_info();
        info.map_err(Error::driver("memory"))
    }

    /// Memory for `len` values, all zero.
    pub fn zeros<T: Element>(&self, len: usize) -> Result<CudaSlice<T>> {
        // The driver has no empty allocations.
        let zeros = self.inner.stream.alloc_zeros(len.max(1));
        zeros.map_err(Error::driver("allocate"))
    }

    /// A copy of `values` on the GPU.
    pub fn upload<T: Element>(&self, values: &[T]) -> Result<CudaSlice<T>> {
        if values.is_empty() {
            return self.zeros(0);
        }
        let copy = self.inner.stream.clone_htod(values);
        copy.map_err(Error::driver("upload"))
    }

    /// Writes `values` to the beginning of `to`.
    pub fn write<T: Element>(&self, values: &[T], to: &mut impl DevicePtrMut<T>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        expect_room("write", values.len(), to.len())?;
        let written = self.inner.stream.memcpy_htod(values, to);
        written.map_err(Error::driver("write"))
    }

    /// Waits for everything before, and brings values back.
    pub fn download<T: Element>(&self, from: &impl DevicePtr<T>) -> Result<Vec<T>> {
        let values = self.inner.stream.clone_dtoh(from);
        let values = values.map_err(Error::driver("download"))?;
        self.synchronize()?;
        Ok(values)
    }

    /// Copies within the GPU's memory: all of `from` to the beginning of `to`.
    pub fn copy<T: Element>(
        &self,
        from: &impl DevicePtr<T>,
        to: &mut impl DevicePtrMut<T>,
    ) -> Result<()> {
        expect_room("copy", from.len(), to.len())?;
        let copied = self.inner.stream.memcpy_dtod(from, to);
        copied.map_err(Error::driver("copy"))
    }

    pub fn set_zero<T: Element>(&self, to: &mut impl DevicePtrMut<T>) -> Result<()> {
        let set = self.inner.stream.memset_zeros(to);
        set.map_err(Error::driver("set_zero"))
    }

    /// Waits until everything has been computed.
    pub fn synchronize(&self) -> Result<()> {
        let done = self.inner.stream.synchronize();
        done.map_err(Error::driver("synchronize"))
    }

    /// Seconds that the GPU takes for what `work` submits.
    pub fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let start = self.inner.stream.record_event(flags);
        let start = start.map_err(Error::driver("record_event"))?;
        work()?;
        let end = self.inner.stream.record_event(flags);
        let end = end.map_err(Error::driver("record_event"))?;
        let ms = start.elapsed_ms(&end).map_err(Error::driver("elapsed"))?;
        Ok(f64::from(ms) / 1e3)
    }

    /// Records what `work` submits, to be launched as one. Nothing is computed now, nothing may be
    /// allocated, and all that is used must stay where it is.
    pub fn record<E: From<Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Graph, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let begun = self.inner.stream.begin_capture(mode);
        begun.map_err(Error::driver("begin_capture"))?;
        let submitted = work();
        let graph = self
            .inner
            .stream
            .end_capture(sys::CUgraphInstantiate_flags(0));
        submitted?;
        let graph = graph.map_err(Error::driver("end_capture"))?;
        let graph = graph.ok_or_else(|| Error::argument("record", "work", "some", "none"))?;
        graph.upload().map_err(Error::driver("graph upload"))?;
        Ok(Graph { graph })
    }

    /// The driver looks for the context of the calling thread; what cudarc does not do itself begins with this.
    pub(crate) fn bind(&self) -> Result<()> {
        let bound = self.inner.context.bind_to_thread();
        bound.map_err(Error::driver("bind"))
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.inner.stream
    }

    pub(crate) fn products(&self) -> &Products {
        &self.inner.products
    }

    /// The kernel of this name.
    pub(crate) fn function(&self, name: &'static str) -> Result<CudaFunction> {
        self.bind()?;
        let mut functions = self
            .inner
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let mut modules = self.inner.modules.iter();
        let found = modules.find_map(|module| module.load_function(name).ok());
        let function =
            found.ok_or_else(|| Error::argument("launch", "kernel", "a known one", name))?;
        functions.insert(name, function.clone());
        Ok(function)
    }
}

/// Work that was recorded; see [`Device::record`].
pub struct Graph {
    graph: CudaGraph,
}

// SAFETY: a graph has no ties to the thread that made it; it is used by one at a time, since launching
// one that is shared needs `&mut`.
unsafe impl Send for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Graph(..)")
    }
}

impl Graph {
    /// Submits the work once more.
    pub fn launch(&mut self) -> Result<()> {
        self.graph.launch().map_err(Error::driver("graph launch"))
    }
}

/// The driver's own library comes with the driver, cublasLt with the CUDA runtime.
fn check_libraries() -> Result<()> {
    // SAFETY: only loads the libraries and lets them go again.
    let (driver, blas) = unsafe { (sys::is_culib_present(), cublaslt::sys::is_culib_present()) };
    if !driver {
        return Err(Error::NoLibrary {
            library: "libcuda.so.1",
            hint: "it comes with NVIDIA's driver, which this machine does not have or show \
                   (in a container: start it with the GPU); --device cpu works without",
        });
    }
    if !blas {
        return Err(Error::NoLibrary {
            library: "libcublasLt.so.13",
            hint: "it comes with the CUDA 13 runtime (or Python's nvidia-cublas); \
                   put its folder into LD_LIBRARY_PATH",
        });
    }
    Ok(())
}

/// By default freed memory goes back to the system at every synchronisation.
fn keep_freed_memory(context: &CudaContext) -> Result<()> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the device is the context's, the attribute's type is a u64.
    let set = unsafe {
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device())
            .result()
            .and_then(|()| {
                sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()
            })
    };
    set.map_err(Error::driver("memory pool"))
}

fn load_images(context: &Arc<CudaContext>) -> Result<Vec<Arc<CudaModule>>> {
    // The software GPU has the kernels already and takes anything.
    let images = if IMAGES.is_empty() {
        &[b"none\0".as_slice()]
    } else {
        IMAGES
    };
    let load = |image: &&[u8]| context.load_module(Ptx::from_binary(image.to_vec()));
    let modules: std::result::Result<Vec<_>, _> = images.iter().map(load).collect();
    modules.map_err(|error| {
        let (major, minor) = context.compute_capability().unwrap_or_default();
        let error = error.to_string();
        let hint = if IMAGES.is_empty() {
            "it was built without them; build with --features cuda".to_owned()
        } else {
            error.lines().next().unwrap_or_default().to_owned()
        };
        Error::NoKernels {
            device: context.name().unwrap_or_default(),
            capability: format!("{major}.{minor}"),
            hint,
        }
    })
}
