import numpy as np
import pytest

from server.aggregation.base import check_count, mean_update


def test_mean_update_divides_by_the_count():
    np.testing.assert_array_equal(mean_update(np.array([6.0, -3.0]), 3), [2.0, -1.0])


def test_one_site_is_enough_and_none_is_not():
    check_count(1)
    with pytest.raises(ValueError, match="needs at least one site, not 0"):
        check_count(0)
