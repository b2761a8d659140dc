"""A network in 8-bit integers, by OpenVINO and NNCF (the optional extra `openvino`): quantised once a step, on the run's own images.

Post-training quantisation: the ranges of activations are taken from calibration images, weights are rounded a channel. What comes out is kept in the
step's folder, so that every worker and every resume runs the same integers. CPUs with VNNI or AMX compute them several times faster than float32.
"""

import contextlib
import io
import logging
import tempfile
from pathlib import Path

from torch import Tensor, nn

from engine.ground import storage
from engine.ground.steps import Step
from engine.predict.backends import Quantised, UnavailableError, check_openvino, openvino_network

GRAPH, WEIGHTS = "int8.xml", "int8.bin"


def save_quantised(step: Step, quantised: Quantised) -> None:
    """Put a network into the step's folder."""
    storage.put(step.fs, f"{step.folder}/{WEIGHTS}", quantised.weights)
    storage.put(step.fs, f"{step.folder}/{GRAPH}", quantised.graph)


def load_quantised(step: Step) -> Quantised:
    """What `save_quantised` put there. Raises FileNotFoundError."""
    graph, weights = (storage.get(step.fs, f"{step.folder}/{name}") for name in (GRAPH, WEIGHTS))
    return Quantised(graph, weights)


def quantise(model: nn.Module, pixels: Tensor, batch_size: int) -> Quantised:
    """`model` in int8, with the ranges that normalised images `pixels` float32 (N, 3, S, S) give. Raises UnavailableError with the reason."""
    check_openvino(pixels.device, "nncf")
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    whole = len(pixels) // batch_size * batch_size or batch_size
    filled = pixels.repeat(-(-whole // len(pixels)), 1, 1, 1)[:whole]
    batches = [batch.numpy() for batch in filled.split(batch_size)]
    attends = any(isinstance(module, nn.LayerNorm) for module in model.modules())
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            rounded = nncf.quantize(
                openvino_network(model, (batch_size, *pixels.shape[1:])),
                nncf.Dataset(batches),
                subset_size=len(batches),
                preset=nncf.QuantizationPreset.MIXED,
                fast_bias_correction=False,  # the fast one moved answers further away than none: 98.5 % alike, not 99.4 %
                model_type=nncf.ModelType.TRANSFORMER if attends else None,
            )
    except Exception as error:  # a converter raises what it likes; the caller says what to do instead
        raise UnavailableError(f"the model could not be quantised: {type(error).__name__}: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(rounded, f"{folder}/{GRAPH}", compress_to_fp16=False)
        return Quantised(Path(folder, GRAPH).read_bytes(), Path(folder, WEIGHTS).read_bytes())
