"""The choices that arguments offer, as enums that `dagger call … --help` lists; capitals or not is all one there."""

import enum

import dagger


@dagger.enum_type
class Path(enum.Enum):
    """How a model is served."""

    RAW = "raw"
    """A Deployment, a Service and a PersistentVolumeClaim, written by hand."""

    KSERVE = "kserve"
    """A KServe InferenceService in Standard mode."""

    LLM_D = "llm-d"
    """A KServe LLMInferenceService: several engines behind a scheduler. To deploy; the other two are compared."""


@dagger.enum_type
class Profile(enum.Enum):
    """How much one engine may use."""

    CPU = "cpu"
    """A laptop or a CI runner without a GPU: 2 to 4 cores and 6 to 10 GiB for each engine."""

    CPU_SMALL = "cpu-small"
    """A machine with 2 cores and 16 GiB: two engines that ask for little and are loaded in turns."""

    GPU = "gpu"
    """One NVIDIA GPU, of which each engine takes 0.6."""

    GKE = "gke"
    """One NVIDIA GPU on GKE, with time for its node to be made and a volume for compiled kernels."""


@dagger.enum_type
class Compression(enum.Enum):
    """How the layers of a modelcar are stored."""

    NONE = "none"
    """As they are: weights hardly shrink, and nothing has to be unpacked at a pull."""

    ZSTD = "zstd"
    """Smaller, for slow links; costs time at push and at pull."""
