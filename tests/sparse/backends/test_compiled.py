"""Triton's compiler takes the kernels for an H200 without one: matrix units are used, and no arrays in memory."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs Triton: pip install triton")

SCRIPT = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from densescan.sparse.backends import kernels, search

kernel = getattr({"kernels": kernels, "search": search}[sys.argv[1]], sys.argv[2])
types, constants, options = (json.loads(text) for text in sys.argv[3:])
signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names)
           if types.get(name, "").startswith("*") or name in ("c_in", "c_out")}
source = ASTSource(kernel, signature, constants, aligned)
code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={**options, "enable_fp_fusion": True})
ptx = code.asm["ptx"]
print(json.dumps({word: ptx.count(word) for word in ("wgmma.mma_async", "cp.async.cg", ".local")}))
"""
CONV = {
    "feats": "*bf16",
    "kernel": "*bf16",
    "out": "*bf16",
    "table": "*i32",
    "order": "*i32",
    "offsets": "*i32",
    "counts": "*i32",
    "scale": "*bf16",
    "scale_rows": "*i32",
    "gain": "*fp32",
    "shift": "*fp32",
    "residual": "*bf16",
    "eps": "fp32",
    "n_out": "i32",
    "copies": "i32",
    "c_in": "i32",
    "c_out": "i32",
}
CONV_FORM = {
    "K": 27,
    "BLOCK_ROWS": 64,
    "BLOCK_OUT": 64,
    "BLOCK_IN": 32,
    "SCALED": False,
    "NORM": 1,
    "RESIDUAL": True,
    "RELU": True,
    "PRECISION": "ieee",
    "WIDEN": False,
}
GRADIENT = {
    "feats": "*bf16",
    "grad_out": "*bf16",
    "partial": "*fp32",
    "in_rows": "*i32",
    "out_rows": "*i32",
    "begins": "*i32",
    "c_in": "i32",
    "c_out": "i32",
}
GRADIENT_FORM = {
    "K": 27,
    "SPLITS": 4,
    "BLOCK_IN": 64,
    "BLOCK_OUT": 64,
    "BLOCK_PAIRS": 64,
    "PRECISION": "ieee",
    "WIDEN": False,
}
NEIGHBOURS = {"keys": "*i64", "rows": "*i32", "n": "i32", "halvings": "i32"}
NEAREST = {
    "queries": "*i64",
    "targets": "*i64",
    "rows": "*i64",
    "n_queries": "i32",
    "begins": "*i64",
    "starts": "*i64",
    "ends": "*i64",
    "query_stride": "i32",
    "target_stride": "i32",
}
CASES = {
    "convolution": ("kernels", "convolve_kernel", CONV, CONV_FORM, True),
    "weight gradient": ("kernels", "kernel_gradient_kernel", GRADIENT, GRADIENT_FORM, True),
    "neighbours": ("search", "_neighbour_kernel", NEIGHBOURS, {"BITS": 16, "BLOCK": 256}, False),
    "nearest": (
        "search",
        "_nearest_kernel",
        NEAREST,
        {"BITS": 16, "OFFSET": 1 << 15, "BLOCK_Q": 64, "BLOCK_T": 32},
        False,
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Triton's compiler for NVIDIA")
@pytest.mark.parametrize("case", CASES)
def test_kernels_compile_for_hopper(case, tmp_path):
    module, name, types, form, multiplies = CASES[case]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    arguments = [json.dumps(x) for x in (types, form, {"num_warps": 4, "num_stages": 3})]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module, name, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert (counts["wgmma.mma_async"] > 0) == multiplies
    assert (counts["cp.async.cg"] > 0) == multiplies  # loads run ahead of products
    assert counts[".local"] == 0
