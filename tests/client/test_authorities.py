"""What a link does with these is tested in tests/client/test_app.py."""

import pytest

from client.authorities import trusted_authorities
from client.config import NetworkConfig
from common.errors import ConfigError


def test_the_pinned_authority_is_trusted_and_a_named_one_besides(tmp_path):
    further = tmp_path / "further.pem"
    further.write_text("further")
    assert trusted_authorities("pinned", NetworkConfig()) == "pinned"
    assert trusted_authorities("pinned", NetworkConfig(extra_ca_file=str(further))) == "pinned\nfurther"


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.pem cannot be read"):
        trusted_authorities("pinned", NetworkConfig(extra_ca_file=str(tmp_path / "gone.pem")))
