import circuits
import pytest

from training.checkpoints.checkpoint import Checkpoint


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Checkpoint:
    return circuits.planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def redundant(tmp_path_factory) -> Checkpoint:
    return circuits.redundant(tmp_path_factory.mktemp("redundant"))


@pytest.fixture(scope="session")
def self_repairing(tmp_path_factory) -> Checkpoint:
    return circuits.self_repairing(tmp_path_factory.mktemp("self_repairing"))


@pytest.fixture(scope="session")
def exact_redundant(redundant) -> Checkpoint:
    return circuits.exact(redundant)
