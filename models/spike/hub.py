"""A network in a repository of the Hugging Face hub, or in a folder that looks like one: the file that ``save`` writes,
as :data:`FILE`, and a card beside it. Nothing is unpickled, and no code comes along.

The package huggingface_hub is imported where a network is fetched or pushed, and nowhere else.
"""

from __future__ import annotations

import json
import tempfile
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sdn.errors import UserError, reason
from sdn.files import write_text

if TYPE_CHECKING:
    from .network import Network

FILE = "network.safetensors"
CARD = "README.md"


class OnHub:
    """What makes a :class:`models.spike.Network` come from the hub and go there."""

    @staticmethod
    def from_pretrained(
        source: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Network:
        """The network of a folder, or of the hub's repository ``user/name``, in evaluation mode, on the CPU.

        Args:
            revision: branch, tag or commit of the repository.
            token, cache_dir, local_files_only: as in ``huggingface_hub.hf_hub_download``.

        Raises:
            UserError: no such folder or repository, a hub that cannot be reached, huggingface_hub is not installed, or
                what :func:`models.spike.load` refuses.
        """
        from .network import load

        folder = Path(source)
        if folder.is_dir():
            return load(folder / FILE)
        hub = _hub()
        try:
            path = hub.hf_hub_download(
                str(source),
                FILE,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                library_name="spikingssm",
            )
        except Exception as error:
            raise UserError(
                f"there is no folder {source}, and {FILE} of the hub's {source} cannot be had: {reason(error)}"
            ) from error
        return load(path)

    def save_pretrained(self: Network, folder: str | PathLike[str]) -> None:  # type: ignore[misc]  # a mixin of Network
        """Write the network and, where there is none yet, its card into ``folder``."""
        from .network import save

        save(self, Path(folder) / FILE)
        if not (Path(folder) / CARD).exists():
            write_text(Path(folder) / CARD, card(self))

    def push_to_hub(  # type: ignore[misc]
        self: Network,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload a network",
    ) -> str:
        """Make the repository ``user/name`` if need be, upload network and card, and return its address.

        A card that is there is left as it is.

        Raises:
            UserError: the hub refuses or cannot be reached, or huggingface_hub is not installed.
        """
        hub = _hub()
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                api = hub.HfApi(token=token, library_name="spikingssm")
                address = api.create_repo(repo_id, private=private, exist_ok=True)
                there = api.file_exists(address.repo_id, CARD, revision=revision)
                api.upload_folder(
                    repo_id=address.repo_id,
                    folder_path=folder,
                    revision=revision,
                    commit_message=commit_message,
                    ignore_patterns=[CARD] if there else None,
                )
            except Exception as error:
                raise UserError(f"the network cannot be pushed to the hub's {repo_id}: {reason(error)}") from error
        return str(address)


def card(network: Network) -> str:
    """The card of a network, Markdown with the hub's header: what is known of it, and how it is loaded."""
    known = {key: value for key, value in network.facts.items() if isinstance(value, (str, int, float))}
    rows = [f"| {key} | {str(value).replace('|', chr(92) + '|')} |" for key, value in known.items()]
    parts = {part: network.spec[part] for part in ("model", "encoder", "decoder")}
    return "\n".join(
        [
            "---",
            "library_name: spikingssm",
            "tags: [spiking-neural-network, state-space-model]",
            "---",
            "# A spiking state-space model" + (f" of {known['dataset']}" if known.get("dataset") else ""),
            "",
            *(["| | |", "|---|---|", *rows, ""] if rows else []),
            "```python",
            "from models.spike import Network",
            "",
            'network = Network.from_pretrained("THIS REPOSITORY")',
            "state = network.initial_state(batch=1)",
            "logits, state = network.step(sample, state)",
            "```",
            "",
            "```json",
            json.dumps(parts, indent=1, ensure_ascii=False),
            "```",
            "",
        ]
    )


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("the hub is reached through a package: pip install huggingface_hub") from error
    return huggingface_hub
