"""Dense 3-D scenes from single sparse LiDAR scans.

>>> import densescan
>>> scene = densescan.load("small")(densescan.read_scan("000123.bin"), seed=0)  # doctest: +SKIP
>>> scene.save("scene.ply")  # doctest: +SKIP
"""

from importlib.metadata import PackageNotFoundError, version

from densescan.completer import Completer
from densescan.completion import Completion, CompletionConfig
from densescan.data.io import read_scan, write_points
from densescan.data.scan import Scan
from densescan.errors import InputError
from densescan.weights.folder import load

try:
    __version__ = version("densescan")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "unknown"
__all__ = [
    "Completer",
    "Completion",
    "CompletionConfig",
    "InputError",
    "Scan",
    "__version__",
    "load",
    "read_scan",
    "write_points",
]
