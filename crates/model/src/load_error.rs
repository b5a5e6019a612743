//! Why a checkpoint could not be loaded. Every message names the file and, where there is one, the field.

use std::io;
use std::path::{Path, PathBuf};

use byzerllm_core::ErrorKind;
use byzerllm_kernels::KernelError;

use crate::template::TemplateError;
use crate::tokenizer::TokenizerError;

/// The result of reading a checkpoint.
pub type LoadResult<T> = Result<T, LoadError>;

/// Why a checkpoint could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The path, or a file that the checkpoint needs, does not exist.
    #[error("{}: {problem}", path.display())]
    NotFound {
        /// The file or directory.
        path: PathBuf,
        /// What is missing and what to do.
        problem: String,
    },
    /// The operating system refused.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file contradicts its format or itself.
    #[error("{}: {field}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The field, key or tensor.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file is well formed, but this build cannot compute what it asks for.
    #[error("{}: {field}: {problem}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field, key or tensor.
        field: String,
        /// What is not supported.
        problem: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("{}: tensor {tensor} is missing", path.display())]
    MissingTensor {
        /// The file, or the directory of a checkpoint in several files.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor's shape is not what the configuration says.
    #[error("{}: tensor {tensor} has shape {found:?}, the configuration asks for {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that follows from the configuration, outermost dimension first.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// The network could not be made of the weights.
    #[error("{}: {source}", path.display())]
    Network {
        /// The checkpoint.
        path: PathBuf,
        /// The cause.
        source: KernelError,
    },
    /// The chat template is not valid.
    #[error("{}: {field}: {source}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// Where it is in the file.
        field: &'static str,
        /// The cause.
        source: TemplateError,
    },
    /// The tokenizer could not be made.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl LoadError {
    pub(crate) fn not_found(path: &Path, problem: impl Into<String>) -> Self {
        Self::NotFound { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            return Self::not_found(path, "does not exist");
        }
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.into(), source }
    }

    pub(crate) fn malformed(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), field: field.into(), problem: problem.into() }
    }

    pub(crate) fn unsupported(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), field: field.into(), problem: problem.into() }
    }

    /// The kind that callers of other crates branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Io { source, .. } | Self::Write { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                ErrorKind::PermissionDenied
            }
            Self::Io { .. } | Self::Write { .. } => ErrorKind::Unavailable,
            Self::Malformed { .. } | Self::MissingTensor { .. } | Self::Shape { .. } => {
                ErrorKind::InvalidRequest
            }
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Network { source: KernelError::OutOfMemory { .. }, .. } => ErrorKind::Unavailable,
            Self::Network { .. } => ErrorKind::InvalidRequest,
            Self::Tokenizer(TokenizerError::Unsupported { .. }) => ErrorKind::Unsupported,
            Self::Template { .. } | Self::Tokenizer(_) => ErrorKind::InvalidRequest,
        }
    }
}

impl From<LoadError> for byzerllm_core::Error {
    fn from(error: LoadError) -> Self {
        byzerllm_core::Error::new(error.kind(), error.to_string()).with_source(error)
    }
}
