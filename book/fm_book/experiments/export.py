"""Export the published networks to ONNX for the playground.

A file holds the graph of ``velocity(x, t)`` for any batch of 28 × 28 images. Parameters are stored in half precision,
as they are published, and cast to float32 when a runtime loads the file; the arithmetic is float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fm_book.records import write_record
from fm_core.checkpoints import load_pretrained, write_atomically
from fm_core.models import UNet
from fm_core.paths import draw_noise
from fm_core.solvers import Velocity, sample

if TYPE_CHECKING:
    import onnx

__all__ = ["Export", "export_onnx", "onnx_velocity"]

SIZE = 28


@dataclass(frozen=True)
class Export:
    """Write the published networks as ONNX files, measure how far they are from PyTorch, and record it.

    Attributes:
        models: networks to write, "base" or "residual".
        half: store the parameters in half precision.
        out: folder of the files, NAME.onnx.
        record: compare with PyTorch and write book/fm_book/results/export.json; off, only the files are written.
        digits: how many digits the comparison draws.
        steps: Euler steps of the comparison.
    """

    models: tuple[str, ...] = ("residual", "base")
    half: bool = True
    out: Path = Path("runs/onnx")
    record: bool = True
    digits: int = 64
    steps: int = 20

    def run(self) -> str:
        said, found = [], {}
        for name in self.models:
            model = load_pretrained(name)
            content = export_onnx(model, half=self.half)
            write_atomically(self.out / f"{name}.onnx", content)
            said.append(f"{name}.onnx {len(content) / 1e6:.2f} MB")
            if self.record:
                change = self._change(model, content)
                found[name] = {"bytes": len(content), "largest_change": change}
                said[-1] += f" (no pixel of {self.digits} digits changes by more than {change:.1e})"
        if self.record:
            setting = {
                "half": self.half,
                "digits": self.digits,
                "method": "euler",
                "nfe": self.steps,
                "seed": 0,
            }
            said.append(f"recorded in {write_record('export', {**setting, 'networks': found}, device='cpu')}")
        return f"{self.out}: {', '.join(said)}"

    def _change(self, model: UNet, content: bytes) -> float:
        """Largest change of any pixel in [-1, 1] when ONNX Runtime draws instead of PyTorch."""
        noise = draw_noise((self.digits, 1, SIZE, SIZE))
        drawn = [sample(velocity, noise, self.steps, progress=False) for velocity in (model, onnx_velocity(content))]
        return float((drawn[0] - drawn[1]).abs().max())


def export_onnx(model: UNet, *, half: bool = True) -> bytes:
    """A network as the content of an ONNX file.

    The file's inputs are ``x``, ``(batch, channels, 28, 28)``, and ``t``, ``(batch,)``; its output is ``velocity``, the
    shape of ``x``; all float32. The batch is free.

    Args:
        model: a network of this package, in evaluation mode, on the CPU.
        half: store the parameters as float16, cast to float32 by nodes that a runtime folds away when it loads the
            file. Numbers that are no parameters, such as the frequencies of the time embedding, stay float32: rounding
            a frequency of 1000 turns its angle by half a degree.

    Raises:
        ValueError: a parameter too large for half precision.
    """
    batch = torch.export.Dim("batch")
    example = (torch.zeros(2, model.channels, SIZE, SIZE), torch.zeros(2))
    # strict, because len(x) is a plain number to the other tracer and would fix the batch
    traced = torch.export.export(model, example, dynamic_shapes=({0: batch}, {0: batch}), strict=True)
    program = torch.onnx.export(
        traced,
        dynamo=True,
        external_data=False,
        input_names=["x", "t"],
        output_names=["velocity"],
        verbose=False,
    )
    assert program is not None  # with dynamo=True it never is
    graph = program.model_proto
    _strip_metadata(graph)
    if half:
        _store_in_half(graph, set(model.state_dict()))
    return graph.SerializeToString()


def onnx_velocity(content: bytes) -> Velocity:
    """``velocity(x, t)`` computed by ONNX Runtime from the content of a file that :func:`export_onnx` made.

    Args:
        content: of the file.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        times = np.broadcast_to(t.numpy(), len(x)).astype(np.float32)
        return torch.from_numpy(session.run(None, {"x": x.numpy(), "t": times})[0])

    return velocity


def _strip_metadata(graph: onnx.ModelProto) -> None:
    """Drop stack traces, which name local paths, and intermediate shapes."""
    for part in (
        *graph.graph.node,
        *graph.graph.initializer,
        *graph.graph.input,
        *graph.graph.output,
    ):
        del part.metadata_props[:]
    del graph.graph.value_info[:]
    del graph.graph.metadata_props[:]
    del graph.metadata_props[:]


def _store_in_half(graph: onnx.ModelProto, parameters: set[str]) -> None:
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.graph.initializer:
        if tensor.name not in parameters:
            continue
        values = numpy_helper.to_array(tensor)
        limit = float(np.finfo(np.float16).max)
        if not (np.abs(values) <= limit).all():
            raise ValueError(
                f"{tensor.name}: expected values up to {limit:g}, the end of half precision, got "
                f"{np.abs(values).max():g}. Export with half=False."
            )
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
