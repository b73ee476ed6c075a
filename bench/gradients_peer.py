"""The PyTorch side of gradients.mjs.

    gradients_peer.py PEER.py FOLDER

Reads FOLDER/problem.safetensors: "weights." and a network's parameters, images [n][c][h][w], labels, and the spec as metadata.
Writes FOLDER/gradients.safetensors: the parameters' gradients under autocast to bfloat16.
"""
import importlib.util
import json
import pathlib
import sys

import torch
import torch.nn.functional as F


def module_at(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


peer = module_at(sys.argv[1])
files = module_at(pathlib.Path(__file__).parent.parent / "examples" / "pytorch_weights.py")
folder = pathlib.Path(sys.argv[2])
tensors, metadata = files.read_safetensors(folder / "problem.safetensors")
spec = json.loads(metadata["spec"])
if spec["strides"] != [1] + [2] * (len(spec["units"]) - 1) or spec["stem"] != "cifar":
    sys.exit("the peer has CIFAR networks alone, which halve the image before each stage but the first")

peer.MODELS[spec["name"]] = (spec["kind"] == "revnet", spec["filters"], spec["units"], spec["bottleneck"])
network = peer.Network(spec["name"], spec["classes"])
prefix = "weights."
files.write_safetensors(folder / "weights.safetensors", {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}, {})
files.load(network, folder / "weights.safetensors")
with torch.autocast("cpu", dtype=torch.bfloat16):
    loss = F.cross_entropy(network(tensors["images"]), tensors["labels"].long())
loss.backward()
files.write_safetensors(folder / "gradients.safetensors", {k: v.grad.float() for k, v in network.named_parameters()}, {})
