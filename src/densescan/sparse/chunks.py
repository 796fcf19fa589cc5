"""A kernel map cut into chunks: as many products as may wait in memory until they are summed.

A chunk holds all pairs that end in a run of output rows. For each offset their inputs are fetched and multiplied; one
sum over bags of products makes the output rows. No sum crosses chunks, memory is read and written in ascending order,
and nothing is allocated for an offset. The centre offset of a voxel set onto itself meets every row with itself: its
inputs lie in a row as they are, and where few voxels have neighbours, its products are the output of the rest.

Starting a product takes as long as multiplying dozens of rows. Offsets with few pairs, about as many each, are
therefore padded to one of a few sizes, and multiplied as one batch.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from densescan.sparse.matmul import ROWS_AT_ONCE, repeating

REDUCED_PAIRS = 98_304  # of a chunk of reduced types: 96 MiB of products for two copies of 256 channels
WIDE_PAIRS = 24_576  # of float32: more would be 2 % faster, but too large at 180,000 points
EVEN_ROWS = 512  # of an offset in a batch that is padded, at most
SPARE_ROWS = 128  # of padding for each of its offsets, at most on average
FEW_SUMS = 1 / 8  # of the rows of a chunk: each costs as much to put into place as five in one sum over all


def pairs_at_once(dtype: torch.dtype) -> int:
    """How many pairs a chunk has, at most about; with fewer, starting a product counts for more."""
    return REDUCED_PAIRS if dtype.itemsize == 2 else WIDE_PAIRS


class Batch(NamedTuple):
    """Products of several kernel offsets that follow one another: as many rows for each."""

    offset: int
    """The first of them."""
    n_offsets: int
    size: int
    """Rows of each."""

    @property
    def offsets(self) -> slice:
        """All of them."""
        return slice(self.offset, self.offset + self.n_offsets)

    @property
    def n_products(self) -> int:
        """Rows of all."""
        return self.n_offsets * self.size


@dataclass(frozen=True)
class Chunk:
    """The pairs that end in output rows [first, last).

    same: the kernel offset that meets every row with itself, None: there is none. Its products come first, row by row.
    in_rows: the input row of every other product, offset by offset; each offset is padded with products that no bag
        holds.
    widest: batch by batch all other products, see `batches`.
    bags, bag_starts: the products to add, output row by output row, and where each row's begin.
    """

    first: int
    last: int
    same: int | None
    in_rows: Int[Tensor, " L"]
    widest: tuple[Batch, ...]
    bags: Int[Tensor, " P"]
    bag_starts: Int[Tensor, " R"]

    @property
    def n_same(self) -> int:
        """How many products are those of rows with themselves."""
        return 0 if self.same is None else self.last - self.first

    @property
    def n_products(self) -> int:
        """All of them, padding included."""
        return self.n_same + len(self.in_rows)

    def batches(self, limit: int) -> list[Batch]:
        """All products but the first `n_same`. Offsets of more than so many rows are batches of their own."""
        parts: list[Batch] = []
        for batch in self.widest:
            every = range(batch.offset, batch.offset + batch.n_offsets)
            parts += [Batch(k, 1, batch.size) for k in every] if batch.size > limit else [batch]
        return parts

    @cached_property
    def ends(self) -> Int[Tensor, " L"]:
        """The output row of every product but the first `n_same`, counted from `first`; of padding, the row after the
        last."""
        n_rows = self.last - self.first
        ends = torch.full((self.n_products,), n_rows, device=self.bags.device)
        ends[self.bags] = torch.repeat_interleave(torch.arange(n_rows, device=ends.device), self._bag_sizes)
        return ends[self.n_same :]

    @cached_property
    def bag_rows(self) -> Int[Tensor, " P"]:
        """The input row of each product of `bags`."""
        same = torch.arange(self.first, self.first + self.n_same, device=self.bags.device)
        return torch.cat((same, self.in_rows))[self.bags]

    @cached_property
    def few_sums(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows, counted from `first`, that end more than the pair with themselves, their bags and where these start;
        None where that is not worth it: all bags are to be summed."""
        if self.same is None:
            return None
        sizes = self._bag_sizes
        rows = torch.nonzero(sizes > 1).squeeze(1)
        if len(rows) > FEW_SUMS * len(sizes):
            return None
        sizes = sizes[rows]
        starts = sizes.cumsum(0) - sizes
        held = torch.repeat_interleave(self.bag_starts[rows] - starts, sizes)
        return rows, self.bags[held + torch.arange(len(held), device=held.device)], starts

    @property
    def _bag_sizes(self) -> Int[Tensor, " R"]:
        return F.pad(self.bag_starts, (0, 1), value=len(self.bags)).diff()


def cut(
    in_rows: list[Int[Tensor, " _"]],
    out_rows: list[Int[Tensor, " _"]],
    n_out: int,
    n_chunks: int,
    same: int | None = None,
) -> tuple[Chunk, ...]:
    """So many chunks of about as many pairs each; within an offset the output rows must ascend.

    same: an offset with a pair of every row with itself.
    """
    every_in, every_out = torch.cat(in_rows), torch.cat(out_rows)
    if not len(every_in):
        return ()
    bag_sizes, rank = _ranks(out_rows, n_out)
    bag_starts = F.pad(bag_sizes.cumsum(0), (1, 0))
    edges = _edges(bag_starts, n_chunks)
    begin, size = _segments(out_rows, edges)
    padded = repeating(size)
    n_same = torch.zeros_like(size[:, 0])
    if same is not None:
        n_same, padded[:, same] = size[:, same], 0
    sides = _sides(len(in_rows), same)
    for side in sides:
        _even_out(padded[:, side])
    start = n_same[:, None] + padded.cumsum(1) - padded  # of each segment, within its chunk
    if same is not None:
        start[:, same] = 0
    lengths = padded.sum(1)

    # The pairs fetched for each product; padding fetches those that follow.
    source = torch.repeat_interleave((begin - start).flatten(), padded.flatten()) + _counted(lengths)
    source += torch.repeat_interleave(n_same, lengths)
    fetched = every_in[source.to(every_in.device).clamp_(max=len(every_in) - 1)].split(lengths.tolist())
    # The product of each pair, and from it the bags: each pair goes to its rank in its output row's bag.
    product = torch.repeat_interleave((start - begin).T.flatten(), size.T.flatten()) + torch.arange(
        len(every_in)
    )
    bags = torch.empty_like(every_out)
    bags[bag_starts[every_out] + rank] = product.to(bags.device)

    rows, pairs = edges.tolist(), bag_starts[edges].tolist()
    return tuple(
        Chunk(
            rows[c], rows[c + 1], same, fetched[c], _batches(padded[c].tolist(), sides),
            bags[pairs[c] : pairs[c + 1]], bag_starts[rows[c] : rows[c + 1]] - pairs[c],
        )
        for c in range(len(fetched))
    )  # fmt: skip


def _ranks(out_rows: list[Tensor], n_out: int) -> tuple[Tensor, Tensor]:
    """How many pairs end in each output row; for each pair, how many of earlier offsets end where it does."""
    seen = torch.zeros(n_out, dtype=torch.int64, device=out_rows[0].device)
    ranks = []
    for rows in out_rows:
        ranks.append(seen[rows])
        seen[rows] = ranks[-1] + 1
    return seen, torch.cat(ranks)


def _edges(bag_starts: Int[Tensor, " R"], n_chunks: int) -> Int[Tensor, " E"]:
    """Output rows at which to cut, so that each chunk has about as many pairs; the first and the last included."""
    n_out, n_pairs = len(bag_starts) - 1, bag_starts[-1]
    inner = torch.arange(1, n_chunks, device=bag_starts.device) * n_pairs // n_chunks
    return F.pad(F.pad(torch.searchsorted(bag_starts, inner), (1, 0)), (0, 1), value=n_out)


def _segments(out_rows: list[Tensor], edges: Tensor) -> tuple[Tensor, Tensor]:
    """Of each chunk and offset the first pair, counted through all offsets, and how many there are: (chunks, K)."""
    counts = torch.tensor([len(rows) for rows in out_rows])
    cuts = torch.stack([torch.searchsorted(rows, edges) for rows in out_rows], dim=1).cpu()
    return (cuts + counts.cumsum(0) - counts)[:-1], cuts.diff(dim=0)


def _counted(lengths: Int[Tensor, " N"]) -> Int[Tensor, " L"]:
    """0, 1, ... up to each length, one after another."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - torch.repeat_interleave(starts, lengths)


def _sides(n_offsets: int, same: int | None) -> list[slice]:
    """The offsets before and after that of rows with themselves, or all."""
    if same is None:
        return [slice(0, n_offsets)]
    return [side for side in (slice(0, same), slice(same + 1, n_offsets)) if side.start < side.stop]


def _even_out(sizes: Int[Tensor, "C K"]) -> None:
    """Raise the sizes of a chunk to the power of two above the largest, where that adds few rows."""
    largest = sizes.amax(1, keepdim=True)
    power = (1 << torch.frexp((largest - 1).double())[1].long()) * (largest > 0)
    added = (power - sizes).sum(1, keepdim=True)
    worth = (added <= SPARE_ROWS * sizes.shape[1]) & (power <= EVEN_ROWS)
    sizes.copy_(torch.where(worth, power, sizes))


def _batches(sizes: list[int], sides: list[slice]) -> tuple[Batch, ...]:
    """One for each side that was evened out, else one for each offset, or several where it has many rows."""
    batches: list[Batch] = []
    for side in sides:
        rows = sizes[side]
        if len(set(rows)) == 1 and 0 < rows[0] <= EVEN_ROWS:
            batches.append(Batch(side.start, len(rows), rows[0]))
            continue
        for k, size in enumerate(rows, side.start):
            batches += [Batch(k, 1, min(ROWS_AT_ONCE, size - b)) for b in range(0, size, ROWS_AT_ONCE)]
    return tuple(batches)
