"""What the tests of a deployment share: the image's environment, made once."""

from pathlib import Path

import pytest

from tests.deploy import image as images


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the environment that the Dockerfile installs."""
    return images.build(tmp_path_factory.mktemp("image"))
