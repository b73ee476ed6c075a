"""Weights between revnet and a PyTorch module of the same structure, through model.safetensors.

    import pytorch_weights
    metadata = pytorch_weights.load(module, "model.safetensors")     # revnet -> PyTorch
    pytorch_weights.save(module, "trained.safetensors", metadata)    # PyTorch -> revnet

Names and layouts are the same on both sides (docs/interchange.md), so both directions are strict: every tensor must be there, and
no other. One exists in PyTorch alone, each BatchNorm's num_batches_tracked. It plays no part where running statistics have a
momentum, as they have in these networks: a module keeps its own, and files have none.

As a program, `python pytorch_weights.py model.safetensors` lists what is in a file. Needs PyTorch and nothing else.
"""
import ctypes
import json
import struct
import sys

import torch

COUNTER = ".num_batches_tracked"
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load(module, path):
    """Sets all parameters and running statistics of `module` from a file. Returns the file's metadata."""
    tensors, metadata = read_safetensors(path)
    counters = {name: value for name, value in module.state_dict().items() if name.endswith(COUNTER)}
    module.load_state_dict({**counters, **tensors}, strict=True)
    return metadata


def save(module, path, metadata=None):
    """
    Writes all parameters and running statistics of `module`, for loadNetwork. `metadata` is that of a file from `load`: with the
    spec in it, loadNetwork(path) needs no more; without, loadNetwork(path, { spec: "revnet-38" }) says what network it is.
    """
    tensors = {name: value for name, value in module.state_dict().items() if not name.endswith(COUNTER)}
    write_safetensors(path, tensors, metadata or {})


def read_safetensors(path):
    """Returns the tensors by name, and the metadata, strings by name."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = torch.frombuffer(data[begin:end], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def write_safetensors(path, tensors, metadata):
    header = {"__metadata__": metadata}
    values, offset = [], 0
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu", torch.float32).contiguous()
        size = value.numel() * value.element_size()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + size]}
        values.append((value, size))
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for value, size in values:
            file.write(ctypes.string_at(value.data_ptr(), size))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python pytorch_weights.py model.safetensors")
    for key, value in read_safetensors(sys.argv[1])[0].items():
        print(f"{key:40} {list(value.shape)}")
