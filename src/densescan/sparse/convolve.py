"""The forward pass of a sparse convolution in plain PyTorch: gather rows, multiply, sum bags of products."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor

from densescan.sparse.chunks import Batch, Chunk
from densescan.sparse.epilogue import Epilogue
from densescan.sparse.int8 import Int8Kernel, rounded_rows
from densescan.sparse.kernel_map import KernelMap
from densescan.sparse.matmul import batch_limit, matmul, row_blocks
from densescan.sparse.scratch import Scratch

_FETCHED, _PRODUCTS = Scratch(), Scratch()


def convolve(
    feats: Float[Tensor, "V_in *G C_in"],
    kernel: Float[Tensor, "K C_in C_out"] | Int8Kernel,
    kernel_map: KernelMap,
    epilogue: Epilogue | None = None,
    out: Float[Tensor, "V_out *G C_out"] | None = None,
) -> Float[Tensor, "V_out *G C_out"]:
    """out[o] = sum_k feats[i] @ kernel[k] over the pairs (i, o) of each offset; sums are kept in float32 or wider.

    Not differentiable. kernel: of 8 bits, it is multiplied with rows rounded to as many. out: where the result is
    written.
    """
    copies, (c_in, c_out) = feats.shape[1:-1], kernel.shape[1:]
    n_copies, flat = copies.numel(), feats.flatten(1)
    out = feats.new_empty(kernel_map.n_out, *copies, c_out) if out is None else out
    chunks = kernel_map.chunks(feats.dtype)
    if not chunks:
        return out.zero_()
    if isinstance(kernel, Int8Kernel):
        (flat, scales), values, gains = rounded_rows(flat), kernel.values, kernel.gains
    else:
        values, scales, gains = kernel, None, None
    limit = batch_limit(flat.dtype, n_copies * c_in * c_out)
    batches = [chunk.batches(limit) for chunk in chunks]
    most = max((batch.n_products for of_chunk in batches for batch in of_chunk), default=0)
    fetched = _FETCHED.like(flat, most, n_copies * c_in)
    products = _PRODUCTS.like(feats, max(chunk.n_products for chunk in chunks), n_copies * c_out)
    if epilogue is not None:
        most_rows = max(chunk.last - chunk.first for chunk in chunks)
        epilogue = epilogue.repeated(torch.Size((most_rows, *copies, c_out)))
    for chunk, of_chunk in zip(chunks, batches, strict=True):
        _multiply(flat, values, chunk, of_chunk, fetched, products)
        sums = _sum_bags(chunk, products) if scales is None else _sum_scaled_bags(chunk, products, scales)
        sums, ends = sums.unflatten(1, (*copies, -1)), slice(chunk.first, chunk.last)
        if gains is not None:
            sums *= gains
        if epilogue is None:
            out[ends] = sums
        else:
            epilogue(sums, ends, out[ends])
    return out


def _multiply(
    feats: Real[Tensor, "V_in GC_in"],
    kernel: Real[Tensor, "K C_in C_out"],
    chunk: Chunk,
    batches: list[Batch],
    fetched: Real[Tensor, "L GC_in"],
    products: Float[Tensor, "P GC_out"],
) -> None:
    """The products of a chunk. batches: its own. fetched: room for the rows of one of them."""
    _, c_in, c_out = kernel.shape
    if chunk.same is not None:
        same = feats[chunk.first : chunk.last].view(-1, c_in), products[: chunk.n_same].view(-1, c_out)
        centre = kernel[chunk.same]
        for where in row_blocks(len(same[0])):
            matmul(same[0][where], centre, out=same[1][where])
    sizes = [batch.n_products for batch in batches]
    blocks = products[chunk.n_same : chunk.n_products].split(sizes)
    for batch, in_rows, block in zip(batches, chunk.in_rows.split(sizes), blocks, strict=True):
        rows = torch.index_select(feats, 0, in_rows, out=fetched[: len(in_rows)])
        _multiply_batch(rows.view(-1, c_in), kernel, batch, block.view(-1, c_out))


def _multiply_batch(
    rows: Real[Tensor, "N C_in"],
    kernel: Real[Tensor, "K C_in C_out"],
    batch: Batch,
    out: Float[Tensor, "N C_out"],
) -> None:
    if batch.n_offsets == 1:
        matmul(rows, kernel[batch.offset], out=out)
    else:
        shape = (batch.n_offsets, -1)
        matmul(rows.unflatten(0, shape), kernel[batch.offsets], out=out.unflatten(0, shape))


def _sum_bags(chunk: Chunk, products: Float[Tensor, "P C"]) -> Float[Tensor, "R C"]:
    """The output rows of a chunk; they may be written over the products."""
    if chunk.few_sums is None:
        return F.embedding_bag(chunk.bags, products[: chunk.n_products], chunk.bag_starts, mode="sum")
    rows, bags, starts = chunk.few_sums
    if len(rows):
        products.index_copy_(0, rows, F.embedding_bag(bags, products[: chunk.n_products], starts, mode="sum"))
    return products[: chunk.n_same]


def _sum_scaled_bags(
    chunk: Chunk, products: Float[Tensor, "P C"], scales: Float[Tensor, " V_in"]
) -> Float[Tensor, "R C"]:
    """The same of products that are to be multiplied by the scales of their input rows."""
    return F.embedding_bag(
        chunk.bags,
        products[: chunk.n_products],
        chunk.bag_starts,
        mode="sum",
        per_sample_weights=scales[chunk.bag_rows],
    )
