# SPDX-License-Identifier: Apache-2.0
"""One TFLite network of the lite models, run by LiteRT on the CPU."""

import os
import sys
import tempfile
from contextlib import contextmanager

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from body4d_lite_models import path

from ..errors import Body4DError


class Network:
    """A network with one input of a fixed or a free size. Raises Body4DError where its file is missing or damaged."""

    def __init__(self, name: str, threads: int = 2):
        try:
            with _without_greeting():  # given as bytes, because LiteRT cannot open every path that Windows has
                self._interpreter = Interpreter(model_content=path(name).read_bytes(), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (OSError, ValueError, RuntimeError) as error:
            raise Body4DError(f"The network {name} cannot be read: {error}", "Install body4d-lite-models again.", "models_damaged") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._shape = tuple(self._interpreter.get_input_details()[0]["shape"])
        self._outputs = {output["name"]: output["index"] for output in self._interpreter.get_output_details()}
        if self._interpreter.get_signature_list():
            named = self._interpreter.get_signature_runner().get_output_details()
            self._outputs = {name: output["index"] for name, output in named.items()}

    def run(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name for one input array, float32. They are copies."""
        if array.shape != self._shape:
            self._interpreter.resize_tensor_input(self._input, array.shape)
            self._interpreter.allocate_tensors()
            self._shape = array.shape
        self._interpreter.set_tensor(self._input, array)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


@contextmanager
def _without_greeting():
    """LiteRT writes an INFO line to the process's stderr, into the middle of our progress; everything else it says is passed on."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            for line in said:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)
