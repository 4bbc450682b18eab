import numpy as np

from server.aggregation.base import mean_update


def test_mean_update_divides_by_the_count():
    np.testing.assert_array_equal(mean_update(np.array([6.0, -3.0]), 3), [2.0, -1.0])
