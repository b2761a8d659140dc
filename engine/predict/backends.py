"""Ways to run one network over normalised images, behind one interface: what is fastest depends on the model, the size and the device.

A backend that is `exact` gives eager's logits up to the rounding of float32 sums. The others change answers: a person asks for them by name, the
fingerprint carries them, and their agreement is measured on the run's own images. `choice.py` measures; every worker obeys the step's plan.
"""

import copy
import importlib.util
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from engine.predict.conv_to_matmul import replace_small_convs

Shape = tuple[int, int, int, int]
"""Images a batch, channels, height, width."""

Forward = Callable[[Tensor], Tensor]
"""Images (N, 3, S, S) on the device, uint8 if it was built with a Norm, otherwise normalised float32, to float32 logits (N, C). N may be below
the batch unless the backend has `fixed_shape`."""


class UnavailableError(Exception):
    """This backend cannot run this model here; the message says why."""


@dataclass(frozen=True)
class Norm:
    """How a network wants its pixels: their mean and standard deviation in 0..1, a channel each."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def scale_and_shift(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """float32 (1, 3, 1, 1) both: a byte x becomes x * scale + shift."""
        mean, std = (torch.tensor(one, device=device).view(1, 3, 1, 1) for one in (self.mean, self.std))
        return 1 / (255 * std), -mean / std

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 images (N, 3, S, S), normalised: float32, where they lie."""
        scale, shift = self.scale_and_shift(images.device)
        return (images * scale).add_(shift)


@dataclass(frozen=True)
class Quantised:
    """A network in int8 as OpenVINO keeps it: graph (XML) and weights. `int8.py` makes it."""

    graph: bytes
    weights: bytes


@dataclass(frozen=True)
class Backend:
    """`build` raises UnavailableError where the backend cannot work. `slow_build`: building takes as long as labelling many thousand images.
    `layout`: how its forward pass wants images to lie in memory; others it would copy. `normalises`: it takes a Norm into its graph.
    """

    name: str
    changes_answers: bool
    build: Callable[..., Forward]
    fixed_shape: bool = False
    slow_build: bool = False
    layout: torch.memory_format = torch.contiguous_format
    normalises: bool = False


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """float32 as it says: by default torch lets GPUs round the inputs of convolutions to TF32's 10 bits."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)


def _eager(model: nn.Module, _shape: Shape, device: torch.device) -> Forward:
    """The model as it was loaded, contiguous: what the others are checked against."""
    model = copy.deepcopy(model).eval().to(device).to(memory_format=torch.contiguous_format)

    def forward(pixels: Tensor) -> Tensor:
        with full_precision(device):
            return model(pixels.contiguous()).float()

    return forward


def _folded(model: nn.Module) -> nn.Module:
    """A copy with batch norms folded into the convolutions before them; a plain copy of a model that torch.fx cannot follow."""
    model = copy.deepcopy(model).eval()
    try:
        return fuse(model).eval()
    except Exception:  # what a tracer trips over has no common class; an unfolded model is as right
        return model


def _lean(model: nn.Module, shape: Shape) -> nn.Module:
    """A copy for one shape with nothing in it that need not be computed: no batch norms, no convolutions of little but padding."""
    return replace_small_convs(_folded(model), shape[-1])


def _channels_last(model: nn.Module, shape: Shape, device: torch.device) -> Forward:
    lean = _lean(model, shape).to(device).to(memory_format=torch.channels_last)

    def forward(pixels: Tensor) -> Tensor:
        with full_precision(device):
            return lean(pixels.contiguous(memory_format=torch.channels_last)).float()

    return forward


def _autocast(dtype: torch.dtype) -> Callable[[nn.Module, Shape, torch.device], Forward]:
    def build(model: nn.Module, shape: Shape, device: torch.device) -> Forward:
        # batch norms stay: folded weights would be rounded to half the bits once more
        ready = (
            replace_small_convs(copy.deepcopy(model).eval(), shape[-1]).to(device).to(memory_format=torch.channels_last)
        )

        def forward(pixels: Tensor) -> Tensor:
            with torch.autocast(device.type, dtype):
                return ready(pixels.contiguous(memory_format=torch.channels_last)).float()

        return forward

    return build


def _frozen(model: nn.Module, shape: Shape, device: torch.device) -> Forward:
    """Traced, frozen and handed to oneDNN with the layouts it likes best."""
    if not hasattr(torch, "jit") or not hasattr(torch.jit, "freeze"):
        raise UnavailableError("this torch has no torch.jit")
    sample = torch.zeros(shape, device=device)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter(
            "ignore"
        )  # torch.jit is deprecated in favour of torch.compile, and is faster here for small images
        traced = torch.jit.trace(_lean(model, shape).to(device), sample, check_trace=False)
        frozen = torch.jit.freeze(traced)
        if device.type == "cpu":
            frozen = torch.jit.optimize_for_inference(frozen)

    def forward(pixels: Tensor) -> Tensor:
        with full_precision(device):
            return frozen(pixels.contiguous()).float()

    return forward


def _compiled(model: nn.Module, shape: Shape, device: torch.device) -> Forward:
    """torch.compile; its compiler runs on the first batch, here, so that a machine without one is told from the start."""
    ready = torch.compile(_lean(model, shape).to(device).to(memory_format=torch.channels_last), dynamic=False)

    def forward(pixels: Tensor) -> Tensor:
        with full_precision(device):
            return ready(pixels.contiguous(memory_format=torch.channels_last)).float()

    with torch.inference_mode():
        forward(torch.zeros(shape, device=device))
    return forward


def _openvino(
    model: nn.Module, shape: Shape, device: torch.device, norm: Norm | None = None, precision: str = "f32"
) -> Forward:
    """OpenVINO on the CPU; the optional extra `openvino`."""
    check_openvino(device)
    return forward_of(openvino_network(model, shape), norm, precision)


def check_openvino(device: torch.device, *packages: str) -> None:
    """Raise UnavailableError unless `device` is a CPU and openvino and `packages` are installed. To be called before they are imported."""
    # OpenVINO reports its use over the network, from a process forked for every message: without this package it does not
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    for package in ("openvino", *packages):
        if importlib.util.find_spec(package) is None:
            raise UnavailableError(f"{package} is not installed: pip install 'self-training-engine[openvino]'")
    if device.type != "cpu":
        raise UnavailableError("OpenVINO runs on CPUs")


def openvino_network(model: nn.Module, shape: Shape) -> Any:
    """The model as an openvino.Model for batches of `shape`."""
    import openvino

    return openvino.convert_model(_lean(model, shape), example_input=torch.zeros(shape), input=[shape])


def forward_of(network: Any, norm: Norm | None, precision: str = "f32") -> Forward:
    """The forward pass of an openvino.Model on the CPU, on as many threads as torch has. `precision`: f32 or bf16."""
    import openvino

    if norm is not None:
        network = _of_bytes(network, norm)
    hints = {
        "INFERENCE_PRECISION_HINT": precision,  # otherwise CPUs with AMX compute in bfloat16
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # otherwise every worker of a machine pins its threads to the same first cores
    }
    compiled = openvino.compile_model(network, "CPU", hints)

    def forward(images: Tensor) -> Tensor:
        ready = images if norm is None else images.permute(0, 2, 3, 1)
        return torch.from_numpy(compiled(ready.contiguous().numpy())[0].copy())

    return forward


def _of_bytes(network: Any, norm: Norm) -> Any:
    """The network for uint8 images, channels last: read as bytes, normalised where they are first used, a quarter of the memory traffic."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(network)
    images = steps.input()
    images.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    images.model().set_layout(Layout("NCHW"))
    mean, std = ([255 * value for value in values] for values in (norm.mean, norm.std))
    images.preprocess().convert_element_type(Type.f32).mean(mean).scale(std)
    return steps.build()


def _int8(
    _model: nn.Module,
    shape: Shape,
    device: torch.device,
    norm: Norm | None = None,
    quantised: Quantised | None = None,
) -> Forward:
    """The network that was quantised for this step: a model itself does not know the ranges of its activations."""
    if quantised is None:
        raise UnavailableError("int8 is calibrated at the start of a labelling step, and this is none")
    check_openvino(device)
    import openvino

    network = openvino.Core().read_model(quantised.graph, quantised.weights)
    network.reshape(list(shape))
    return forward_of(network, norm)


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("eager", False, _eager),
        Backend("channels_last", False, _channels_last, layout=torch.channels_last),
        Backend("frozen", False, _frozen, fixed_shape=True),
        Backend("compiled", False, _compiled, fixed_shape=True, slow_build=True, layout=torch.channels_last),
        Backend("openvino", False, _openvino, fixed_shape=True, normalises=True),
        Backend("bf16", True, _autocast(torch.bfloat16), layout=torch.channels_last),
        Backend("openvino_bf16", True, partial(_openvino, precision="bf16"), fixed_shape=True, normalises=True),
        Backend("fp16", True, _autocast(torch.float16), layout=torch.channels_last),
        Backend("int8", True, _int8, fixed_shape=True, normalises=True),
    )
}


def _after(norm: Norm, forward: Forward, layout: torch.memory_format, device: torch.device) -> Forward:
    """`forward` for uint8 images. One new tensor, not three: memory is what normalising costs."""
    scale, shift = norm.scale_and_shift(device)
    return lambda images: forward((images.contiguous(memory_format=layout) * scale).add_(shift))


def build(
    name: str,
    model: nn.Module,
    shape: Shape,
    device: torch.device,
    quantised: Quantised | None = None,
    norm: Norm | None = None,
) -> Forward:
    """The backend's forward pass, tried on one batch of zeros: of uint8 images with a `norm`, of normalised ones without.

    `quantised`: the step's, for backend int8. Raises UnavailableError with the reason for whatever goes wrong on the way.
    """
    backend = BACKENDS[name]
    make = partial(_int8, quantised=quantised) if name == "int8" else backend.build
    try:
        if norm is not None and backend.normalises:
            forward = make(model, shape, device, norm=norm)
        else:
            forward = make(model, shape, device)
            forward = forward if norm is None else _after(norm, forward, backend.layout, device)
        with torch.inference_mode():
            logits = forward(torch.zeros(shape, dtype=torch.float32 if norm is None else torch.uint8, device=device))
    except UnavailableError:
        raise
    except (
        Exception
    ) as error:  # compilers and converters raise what they like; none of it may end a job that eager can do
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnavailableError(f"{type(error).__name__}: {first[:200]}") from error
    if logits.ndim not in (2, 4) or len(logits) != shape[0]:
        raise UnavailableError(f"gave {tuple(logits.shape)} for a batch of {shape[0]}")
    return forward
