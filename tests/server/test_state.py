import json
import math

from server.state import Evaluation, RoundSummary, as_json


def test_json_has_null_where_a_figure_has_no_value():
    judged = Evaluation(0.5, {"auc": math.nan, "accuracy": 0.75, "worst": math.inf})
    summary = RoundSummary(1, 2, True, {"malformed": 1}, {}, math.inf, {"head": 0.5}, judged, 0.1, 3, 4)
    plain = as_json(summary)
    assert plain["validation"] == {"loss": 0.5, "metrics": {"auc": None, "accuracy": 0.75, "worst": None}}
    assert (plain["update_norm"], plain["refusals"], plain["applied"]) == (None, {"malformed": 1}, True)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_a_round_without_evaluation_stays_without():
    assert as_json(RoundSummary(1, 0, False, {}, {}, 0.0, {}, None, 0.1, 3, 0))["validation"] is None
