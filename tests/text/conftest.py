"""What several tests of texts share."""

import pytest
import tiny_hub

FOLDERS: dict[str, str] = {}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny model's folder by its kind, made once."""

    def make(kind, **more):
        key = kind + repr(more)
        if key not in FOLDERS:
            FOLDERS[key] = getattr(tiny_hub, kind)(tmp_path_factory.mktemp(kind), **more)
        return FOLDERS[key]

    return make
