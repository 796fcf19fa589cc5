"""The rules of the house that no single module can keep: import layers, size, who prints, what is unpickled."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "densescan"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300
"""Lines of a source file; one that needs more is named in LONGER with its reason."""
LONGER: dict[Path, str] = {}

every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))


def calls(tree: ast.AST) -> dict[str, list[ast.Call]]:
    """All calls by the dotted name of what is called."""
    found: dict[str, list[ast.Call]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.setdefault(ast.unparse(node.func), []).append(node)
    return found


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of all modules and objects that are imported, at any depth of the code."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_run_downwards_only(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_every_folder_of_code_is_a_package() -> None:
    without = {source.parent for source in SOURCES if not (source.parent / "__init__.py").is_file()}
    assert not without, "the import layers do not see a folder without __init__.py"


@every_source
def test_only_the_front_door_imports_the_public_names(source: Path) -> None:
    if source == PACKAGE / "__init__.py":
        return
    modules = {path.stem if path.stem != "__init__" else path.parent.name for path in PACKAGE.glob("*.py")}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    names = imported(ast.parse(source.read_text()))
    public = {name for name in names if name.split(".")[0] == "densescan" and name.split(".")[1:2] != []}
    assert "densescan" not in names
    assert {name.split(".")[1] for name in public} <= modules, "import from the module that defines the name"


@every_source
def test_files_stay_short(source: Path) -> None:
    length = len(source.read_text().splitlines())
    assert length <= LONGEST or source.relative_to(PACKAGE) in LONGER
    assert length > LONGEST or source.relative_to(PACKAGE) not in LONGER, (
        "it is short again: take it off the list"
    )


@every_source
def test_the_library_neither_prints_nor_exits(source: Path) -> None:
    if source == PACKAGE / "demo.py":  # ends with the exit status, as any script
        return
    called = calls(ast.parse(source.read_text()))
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write"}
    assert not forbidden & called.keys()


@every_source
def test_nothing_is_unpickled(source: Path) -> None:
    tree = ast.parse(source.read_text())
    harmless = {"pickle.UnpicklingError"}  # what torch.load raises
    assert not {name.split(".")[0] for name in imported(tree) - harmless} & {
        "pickle",
        "dill",
        "cloudpickle",
        "shelve",
    }
    called = calls(tree)
    for load in called.get("torch.load", []):
        options = {option.arg: ast.unparse(option.value) for option in load.keywords}
        assert options.get("weights_only") == "True", (
            f"line {load.lineno}: torch.load runs code from the file"
        )
    for load in called.get("np.load", []):
        options = {option.arg: ast.unparse(option.value) for option in load.keywords}
        assert options.get("allow_pickle", "False") == "False", f"line {load.lineno}: runs code from the file"


@every_source
def test_every_module_says_what_it_is(source: Path) -> None:
    assert ast.get_docstring(ast.parse(source.read_text())), "a file starts with a docstring: its one concept"
