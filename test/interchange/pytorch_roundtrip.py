"""The PyTorch side of pytorch.test.ts.

    pytorch_roundtrip.py PEER.py PYTORCH_WEIGHTS.py FOLDER MODEL

Reads from FOLDER: ours.safetensors, and images.bin, normalised float32 [n][32][32][3].
Writes there: ours.bin and theirs.bin, float32 logits [n][10] of the network with our weights and of one with weights of its own,
and that one's weights, theirs.safetensors; again.safetensors, our weights written back.
"""
import array
import importlib.util
import pathlib
import sys

import torch


def module_at(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, tensor):
    path.write_bytes(array.array("f", tensor.flatten().tolist()).tobytes())


peer, weights = module_at(sys.argv[1]), module_at(sys.argv[2])
folder, name = pathlib.Path(sys.argv[3]), sys.argv[4]
torch.manual_seed(1)
torch.set_num_threads(2)
pixels = torch.frombuffer(bytearray((folder / "images.bin").read_bytes()), dtype=torch.float32)
images = pixels.view(-1, 32, 32, 3).permute(0, 3, 1, 2)

with torch.no_grad():
    ours = peer.Network(name).eval()
    metadata = weights.load(ours, folder / "ours.safetensors")
    write(folder / "ours.bin", ours(images))
    weights.save(ours, folder / "again.safetensors", metadata)

    theirs = peer.Network(name)
    for key, value in theirs.state_dict().items():
        if value.ndim == 1 and value.is_floating_point():
            value += torch.rand_like(value) if key.endswith("running_var") else 0.4 * (torch.rand_like(value) - 0.5)
    theirs.eval()
    write(folder / "theirs.bin", theirs(images))
    weights.save(theirs, folder / "theirs.safetensors")

    # Strict: a tensor that is missing or superfluous is an error.
    tensors, _ = weights.read_safetensors(folder / "ours.safetensors")
    for changed in ({k: v for k, v in tensors.items() if k != "head.bn.bias"}, {**tensors, "surplus": tensors["head.bn.bias"]}):
        weights.write_safetensors(folder / "wrong.safetensors", changed, {})
        try:
            weights.load(ours, folder / "wrong.safetensors")
        except RuntimeError:
            continue
        sys.exit("a file with a wrong tensor was loaded")
