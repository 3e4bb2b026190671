"""Where the network of a page comes from, and the data set that belongs to it."""

from __future__ import annotations

from pathlib import Path

from models.spike.network import Network, load
from models.spike.shipped import names
from sdn.errors import UserError
from src.dataloaders.base import SequenceData
from src.dataloaders.check import open_data
from src.meaning import check_meaning
from src.registry import REGISTRY


def open_network(source: str) -> tuple[Network, SequenceData]:
    """A checkpoint, a one-file network ``NAME.safetensors`` or the name of one that ships, with its data set, prepared.

    A network file names its data set, of which only those of this repository are opened.

    Raises:
        UserError: it cannot be read, or its data cannot be had or number tokens or classes otherwise.
    """
    if not (source.endswith(".safetensors") or (source in names() and not Path(source).exists())):
        from src.export import network_of, run_facts
        from src.restore import restore

        module, data = restore(source)
        return network_of(module, **run_facts(source)), data
    network = load(source)
    name = network.facts.get("dataset")
    if not isinstance(name, str) or name not in REGISTRY["dataset"]:
        raise UserError(f"{source} names no data set of this repository; export the checkpoint, which knows its data")
    data = open_data({**(network.facts.get("dataset_options") or {}), "_name_": name})
    check_meaning(network.facts, data.facts(), source)
    return network, data
