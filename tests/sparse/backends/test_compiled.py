"""Triton's compiler takes the kernels for an H200 without one: matrix units are used, and no arrays in memory."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs Triton: pip install triton")

SCRIPT = """
import json, re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from densescan.sparse.backends import candidates, farthest, kernels, level_kernels, means, nearest, search
from densescan.sparse.backends import table_group, table_kernels

modules = (candidates, farthest, kernels, level_kernels, means, nearest, search, table_group, table_kernels)
modules = {m.__name__.split(".")[-1]: m for m in modules}
words = ("wgmma.mma_async", "cp.async.cg", ".local", "fma.")


def compiled(module, name, types, constants, options):
    kernel = getattr(modules[module], name)
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names)
               if types.get(name, "").startswith("*") or name in ("c_in", "c_out", "c_other")}
    source = ASTSource(kernel, signature, constants, aligned)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    waits = re.findall(r"cp\\.async\\.wait_group\\s+(\\d+)", ptx)
    return {**{word: ptx.count(word) for word in words}, "ahead": max(map(int, waits), default=0)}


found = {}
for case, arguments in json.load(sys.stdin).items():
    try:
        found[case] = compiled(*arguments)
    except Exception as error:
        found[case] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
_BF16, _INT32, _INT64, _FLOAT32 = "*bf16", "*i32", "*i64", "*fp32"
CONV = {
    **dict.fromkeys(("feats", "kernel", "out", "scale", "residual", "other", "other_kernel"), _BF16),
    **dict.fromkeys(("table", "offsets", "counts"), _INT32),
    **dict.fromkeys(("gain", "shift", "limits"), _FLOAT32),
    **dict.fromkeys(("n_out", "copies", "c_in", "c_out", "c_other", "stride_out", "spare"), "i32"),
    "eps": "fp32",
    **{"order": _INT32, "scale_rows": _INT64},
}
CONV_FORM = {
    **{
        "K": 27,
        "TOGETHER": 2,
        "BLOCK_ROWS": 64,
        "BLOCK_OUT": 64,
        "BLOCK_IN": 32,
        "PRECISION": "ieee",
        "WIDEN": False,
    },
    **{
        "BLOCKS_IN": 3,
        "BLOCKS_OTHER": 0,
        "WHOLE_IN": True,
        "WHOLE_OUT": False,
        "POINTWISE": False,
        "SCALED": False,
        "LAYER_NORM": False,
        "GAIN": True,
        "SHIFT": True,
        "LIMITS": True,
        "RESIDUAL": True,
        "RELU": True,
    },
}
GRADIENT = {
    **dict.fromkeys(("feats", "grad_out"), _BF16),
    **dict.fromkeys(("in_rows", "out_rows", "begins"), _INT32),
    **{"partial": _FLOAT32, "splits": "i32", "c_in": "i32", "c_out": "i32"},
}
GRADIENT_FORM = {
    **{"K": 27, "BLOCK_IN": 64, "BLOCK_OUT": 64, "BLOCK_PAIRS": 64},
    **{"PRECISION": "ieee", "WIDEN": False},
}
NEIGHBOURS = {"keys": _INT64, "rows": _INT32, "n": "i32", "halvings": "i32"}
NEAREST = {
    **dict.fromkeys(("queries", "targets", "rows"), _INT64),
    **dict.fromkeys(("n_queries", "n_targets", "halvings", "query_stride", "target_stride"), "i32"),
}
NEAREST_FORM = {"BITS": 16, "OFFSET": 1 << 15, "FREE": 1 << 62, "BLOCK_Q": 64, "BLOCK_T": 32}
CANDIDATES = {
    **dict.fromkeys(("keys", "cells", "targets", "rows"), _INT64),
    **{"lists": _INT32, "counts": _INT32},
    **dict.fromkeys(("n", "n_cells", "n_targets", "halvings", "stride"), "i32"),
}
CANDIDATES_FORM = {
    **{"LEVELS": 5, "BITS": 16, "OFFSET": 1 << 15, "FREE": 1 << 62},
    **{"MOST": 96, "BLOCK_Q": 32, "BLOCK_C": 16},
}
GROUP = {
    **dict.fromkeys(("entries", "weights", "codes", "ordered", "own", "offsets", "counts"), _INT32),
    **{"layout": _INT64, "order": _INT64},
}
GROUP_FORM = {**{"T": 13, "TS": 16, "FIELDS": 5, "MOST_OFFSETS": 27, "KS": 32}, **{"SIZE": 64, "TILES": 2}}
LISTS = {**dict.fromkeys(("rows", "counts", "ends", "in_rows", "out_rows", "begins"), _INT32), "n": "i32"}
WAYS = {"parent": _INT64, "slot": _INT64, "rows": _INT32, "n": "i32", "n_coarse": "i32"}
MEANS = {
    **{"feats": _FLOAT32, "means": _FLOAT32, "n_points": "i32", "n_voxels": "i32"},
    **dict.fromkeys(("order", "begins", "present"), _INT64),
}
LEVELS = {
    **dict.fromkeys(
        ("coords", "keys", "places", "order", "ranks", "levels", "rows", "firsts", "begins"), _INT64
    ),
    **dict.fromkeys(("limits", "parents", "slots", "cells"), _INT64),
    **dict.fromkeys(("n", "begin", "clouds", "x_low", "y_low", "z_low", "x_size", "y_size", "z_size"), "i32"),
    "fit": "*i8",
}
LEVELS_FORM = {
    **{
        "LEVELS": 5,
        "ABSENT": -1,
        "BITS": 16,
        "BIAS": 1 << 15,
    },
    **{"FREE": 1 << 62, "NO_VOXEL": (1 << 63) - 1, "BLOCK": 256},
}
NEAREST_POINT = {
    **dict.fromkeys(("queries", "targets", "boxes", "squares"), _FLOAT32),
    **{"rows": _INT32, "n_queries": "i32", "n_targets": "i32"},
}
NEAREST_POINT_FORM = {"BLOCK_Q": 64, "BLOCK_T": 64, "BLOCK_BOXES": 128}
FARTHEST = {
    **dict.fromkeys(("points", "squares", "values", "greatest", "new", "candidates", "top"), _FLOAT32),
    **dict.fromkeys(("n_new", "counts", "settled", "wanted", "rows", "n_candidates", "done"), _INT32),
    **{"length": "i32", "n_greatest": "i32"},
}
FARTHEST_FORM = {"CANDIDATES": 2048, "LEVELS": 64, "BLOCK": 512, "TOGETHER": 256}
CASES = {
    "convolution": ("kernels", "convolve_kernel", CONV, CONV_FORM, True),
    "convolution of scaled rows": ("kernels", "convolve_kernel", CONV, {**CONV_FORM, "SCALED": True}, True),
    "convolution beside a product": (
        "kernels",
        "convolve_kernel",
        CONV,
        {**CONV_FORM, "BLOCKS_OTHER": 4, "LIMITS": False, "RESIDUAL": False},
        True,
    ),
    "products of rows": ("kernels", "convolve_kernel", CONV, {**CONV_FORM, "K": 1, "POINTWISE": True}, True),
    "weight gradient": ("kernels", "kernel_gradient_kernel", GRADIENT, GRADIENT_FORM, True),
    "neighbours": (
        "search",
        "_neighbour_kernel",
        NEIGHBOURS,
        {"BITS": 16, "FREE": 1 << 62, "BLOCK": 256},
        False,
    ),
    "products in float32": (
        "kernels",
        "convolve_kernel",
        {**CONV, "kernel": _FLOAT32, "out": _FLOAT32},
        {**CONV_FORM, "K": 1, "POINTWISE": True, "WIDEN": True, "PRECISION": "tf32"},
        True,
    ),
    "codes of patterns": ("table_group", "_codes_kernel", GROUP, {**GROUP_FORM, "BLOCK": 128}, False),
    "tiles": ("table_group", "_tiles_kernel", GROUP, GROUP_FORM, False),
    "columns in order": ("table_group", "_permute_kernel", GROUP, {**GROUP_FORM, "BLOCK": 128}, False),
    "pairs counted": ("table_kernels", "_count_kernel", LISTS, {"BLOCK": 512}, False),
    "pairs listed": ("table_kernels", "_list_kernel", LISTS, {"BLOCK": 512}, False),
    "parents": ("table_kernels", "_parent_kernel", WAYS, {"BLOCK": 512}, False),
    "children": ("table_kernels", "_children_kernel", WAYS, {"BLOCK": 512}, False),
    "means": ("means", "_means_kernel", MEANS, {"C": 6, "SPARE": True, "BLOCK": 256}, False),
    "levels: places": ("level_kernels", "_places_kernel", LEVELS, LEVELS_FORM, False),
    "levels: short places": (
        "level_kernels",
        "_places_kernel",
        {**LEVELS, "places": _INT32},
        LEVELS_FORM,
        False,
    ),
    "levels: rows": ("level_kernels", "_rows_kernel", LEVELS, LEVELS_FORM, False),
    "levels: parents": ("level_kernels", "_parents_kernel", LEVELS, LEVELS_FORM, False),
    "nearest": ("search", "_nearest_kernel", NEAREST, NEAREST_FORM, False),
    "candidates": ("candidates", "_candidates_kernel", CANDIDATES, {**CANDIDATES_FORM, "BLOCK_T": 32}, False),
    "nearest of candidates": (
        "candidates",
        "_among_kernel",
        CANDIDATES,
        {**CANDIDATES_FORM, "BLOCK_T": 16},
        False,
    ),
    "farthest: approach": (
        "farthest",
        "_approach_kernel",
        FARTHEST,
        {"CANDIDATES": 2048, "BLOCK": 64, "BLOCK_NEW": 32},
        False,
    ),
    "farthest: count": ("farthest", "_count_kernel", FARTHEST, {**FARTHEST_FORM, "TOGETHER": 1024}, False),
    "farthest: gather": ("farthest", "_gather_kernel", FARTHEST, FARTHEST_FORM, False),
    "farthest: select": (
        "farthest",
        "_select_kernel",
        FARTHEST,
        {"CANDIDATES": 2048, "BLOCK": 16, "BLOCK_OTHER": 256},
        False,
    ),
    "nearest point": ("nearest", "_nearest_point_kernel", NEAREST_POINT, NEAREST_POINT_FORM, False),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What was found in the code of every case, or how the compiler failed; in one process, for one takes a while."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    cases = {
        case: (
            module,
            name,
            types,
            form,
            {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": fused(module)},
        )
        for case, (module, name, types, form, _) in CASES.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(cases),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def fused(module):
    """Whether products and sums may be contracted; those of farthest points are rounded as on a processor."""
    return module != "farthest"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Triton's compiler for NVIDIA")
@pytest.mark.parametrize("case", CASES)
def test_kernels_compile_for_hopper(case, compiled):
    module, *_, multiplies = CASES[case]
    counts = compiled[case]
    assert isinstance(counts, dict), counts
    assert (counts["wgmma.mma_async"] > 0) == multiplies
    assert counts["ahead"] >= 2 * multiplies  # loads of two products run ahead of a third
    assert counts[".local"] == 0
    assert fused(module) or counts["fma."] == 0
