"""Writing an ONNX graph node by node, with constants that stay in the bundle's own files (ONNX's external
data)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.tensors import TensorFile

OPSET = 18
IR_VERSION = 8  # of opset 18


class Nodes:
    """A graph that grows. Values are their names; every method but ``model`` adds something and gives back a
    name."""

    def __init__(self, folder: Path) -> None:
        from onnx import helper

        self._helper, self.folder = helper, folder
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._numbers: dict[Any, str] = {}

    def input(self, name: str, kind: str, shape: Sequence[str | int]) -> str:
        """An input of this type ("INT64")."""
        from onnx import TensorProto

        self._inputs.append(self._helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape))
        return name

    def output(self, name: str, value: str, kind: str, shape: Sequence[str | int]) -> None:
        from onnx import TensorProto

        self.nodes.append(self._helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape))

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; the name of its output, or a list of them."""
        names = [f"{operator.lower()}_{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(self._helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def number(self, values: Any, dtype: Any = np.int64) -> str:
        """A constant, kept in the graph."""
        from onnx import numpy_helper

        array = np.asarray(values, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._numbers:
            self._numbers[key] = f"number_{len(self._numbers)}"
            self.constants.append(numpy_helper.from_array(array, self._numbers[key]))
        return self._numbers[key]

    def stored(self, file: str, name: str) -> str:
        """An array of a safetensors file of the bundle, which the graph reads there."""
        from onnx import TensorProto

        if (known := f"{file}/{name}") in {constant.name for constant in self.constants}:
            return known
        tensors = TensorFile(self.folder / file)
        offset, size = tensors.places[name]
        array = tensors[name]
        entry = TensorProto(name=f"{file}/{name}", dims=array.shape, data_location=TensorProto.EXTERNAL)
        entry.data_type = self._helper.np_dtype_to_tensor_dtype(array.dtype)
        for key, value in (("location", file), ("offset", str(offset)), ("length", str(size))):
            entry.external_data.add(key=key, value=value)
        self.constants.append(entry)
        return entry.name

    def rename(self, value: str, name: str) -> None:
        """A second name for a value."""
        self.nodes.append(self._helper.make_node("Identity", [value], [name]))

    def take(self, graph: Any) -> None:
        """The nodes and constants of another graph, whose names are none of this one's."""
        self.nodes.extend(graph.node)
        self.constants.extend(graph.initializer)

    def model(self, name: str, words: str) -> Any:
        """The graph as ONNX's ModelProto. ``words``: what it says of itself."""
        graph = self._helper.make_graph(
            self.nodes, name, self._inputs, self._outputs, self.constants, doc_string=words
        )
        opset = [self._helper.make_opsetid("", OPSET)]
        return self._helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="recbole_alkd"
        )
