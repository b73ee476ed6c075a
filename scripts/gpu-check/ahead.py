"""Starts a peer's script ahead of time: python3 ahead.py [--warm] FILE ARGS...

Loads PyTorch, prints "ready", waits for a line on standard input, then runs FILE with ARGS as the main program. With --warm, FILE has
been run once by then, so that what it compiles is in PyTorch's cache on disk.
"""
import contextlib
import gc
import io
import runpy
import sys

import torch


def main():
    warm = sys.argv[1] == "--warm"
    sys.argv = sys.argv[2 if warm else 1 :]
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    if warm:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(sys.argv[0], run_name="__main__")
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    print("ready", flush=True)
    if sys.stdin.readline():
        runpy.run_path(sys.argv[0], run_name="__main__")


main()
