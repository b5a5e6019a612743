//! Why a checkpoint could not be written in another format.

use std::io;
use std::path::{Path, PathBuf};

use byzerllm_core::ErrorKind;
use byzerllm_kernels::KernelError;

use crate::load_error::LoadError;

/// Why a checkpoint could not be written in another format. Nothing half-written is left behind.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Something is there already.
    #[error("{} exists already: choose another place, or overwrite it with --force", path.display())]
    Exists {
        /// The file or directory.
        path: PathBuf,
    },
    /// The system refused to write; a full disk, for example.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The checkpoint has something that the format asked for cannot express.
    #[error("{}: {problem}", path.display())]
    Unsupported {
        /// The checkpoint.
        path: PathBuf,
        /// What, and what is possible instead.
        problem: String,
    },
    /// Values that cannot be encoded.
    #[error("{}: tensor {tensor}: {source}", path.display())]
    Tensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The cause.
        source: KernelError,
    },
    /// The forward pass over the calibration text failed.
    #[error("calibration failed: {0}")]
    Calibration(String),
}

impl QuantizeError {
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.into(), source }
    }

    pub(super) fn unsupported(path: &Path, problem: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), problem: problem.into() }
    }

    /// The kind that callers of other crates branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Load(error) => error.kind(),
            Self::Exists { .. } | Self::Tensor { .. } | Self::Calibration(_) => ErrorKind::InvalidRequest,
            Self::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            Self::Write { .. } => ErrorKind::Unavailable,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }
}

impl From<QuantizeError> for byzerllm_core::Error {
    fn from(error: QuantizeError) -> Self {
        byzerllm_core::Error::new(error.kind(), error.to_string()).with_source(error)
    }
}
