"""Models on the Hugging Face Hub: fetched into a model folder, or published from one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

from densescan.errors import InputError
from densescan.files import atomic_write, make_folder
from densescan.weights.folder import CARD, CONFIG, TENSORS, model_folder, read_model

# The Hub's library is imported where it is used: completing a scan needs no network and should not wait for it.


def download(repository: str, folder: str | Path, revision: str | None = None) -> None:
    """Fetch a model from the Hub into a model folder; the files are checked before any of them is written.

    Args: repository: such as "user/name". folder: is made where it is missing. revision: branch, tag or commit;
        None: the newest on the main branch.
    Raises: InputError: no network, no such repository or revision, no model of this version in it, or an unwritable
        folder.
    """
    from huggingface_hub import HfApi

    with _explained(f"download {repository}"):
        snapshot = HfApi().snapshot_download(
            repository, revision=revision, allow_patterns=[CARD, CONFIG, TENSORS]
        )
    fetched = Path(str(snapshot))
    missing = [name for name in (CONFIG, TENSORS) if not (fetched / name).is_file()]
    if missing:
        raise InputError(
            f"{repository} holds no densescan model ({' and '.join(missing)} missing): check the name and the "
            "revision; official checkpoints are turned into models by `densescan weights convert`"
        )
    read_model(fetched)
    folder = Path(folder)
    make_folder(folder)
    for name in (CARD, TENSORS, CONFIG):  # the last one makes the folder a model
        if (fetched / name).is_file():
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes((fetched / name).read_bytes())


def push(model: str | Path, repository: str, private: bool = False) -> str:
    """Publish a model on the Hub, in one commit, into a repository that is made where it is missing.

    Args: model: a bundled model's name or a model folder. repository: such as "user/name". private: whether a new
        repository is visible to its owners alone.
    Returns: the address of the commit.
    Raises: InputError: a bad model, no network, not logged in, or no permission.
    """
    from huggingface_hub import HfApi

    _, config = read_model(model)
    if config.shared:
        raise InputError(
            f"{model} takes networks from {', '.join(sorted(set(config.shared.values())))} of this installation: make "
            f"it whole with `densescan weights merge {model} -o FOLDER` and publish the folder"
        )
    with _explained(f"publish {model} as {repository}"):
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=model_folder(model),
            allow_patterns=[CARD, CONFIG, TENSORS],
            commit_message=f"Publish {Path(model).name}",
        )
    return str(commit.commit_url)


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """What the Hub's library may raise, as the user's mistake with a remedy."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of whichever httpx it uses
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    remedies: list[tuple[tuple[type[Exception], ...], str]] = [
        ((HFValidationError,), "name a repository as user/name"),
        ((OfflineModeIsEnabled,), "unset HF_HUB_OFFLINE to go online"),
        ((RepositoryNotFoundError,), "check its name; one that is private needs `hf auth login`"),
        ((RevisionNotFoundError,), "check the revision"),
        ((HfHubHTTPError,), "to publish, log in with `hf auth login` and check that the repository is yours"),
        ((LocalEntryNotFoundError, HTTPError), "check the network, or fetch the folder by other means"),
        ((OSError,), "check the space on the disk and the place of the cache, HF_HOME"),
    ]
    try:
        yield
    except tuple(kind for kinds, _ in remedies for kind in kinds) as error:
        remedy = next(text for kinds, text in remedies if isinstance(error, kinds))
        reason = shorten(str(error), 160, placeholder=" ...")
        raise InputError(f"cannot {doing}: {reason}; {remedy}") from error
