import json
import math

from tests.client.commands.test_plans import ledger, reserve
from tests.site_commands import Play


def bar(text: str) -> str:
    return next(line for line in text.splitlines() if "░" in line or "█" in line)


def test_a_new_site_has_all_of_its_budget(play: Play) -> None:
    play.init()
    ended = play("budget")
    assert ended.code == 0
    assert bar(ended.out).strip() == "░" * 60
    assert "left ε 10.000" in ended.out


def test_the_bar_is_what_was_spent_and_what_may_come(joined: Play) -> None:
    reserve(joined, joined.approved(name="first"))  # 15.4 %: 9.2 cells, shown as 10
    joined("review", joined.sign(name="second", rounds=400)[1])  # twice that: 18.4, shown as 19
    out = joined("budget").out
    assert bar(out).strip() == "█" * 10 + "▒" * 19 + "░" * 31
    assert "first" in out
    assert "7 of 200 rounds charged" in out
    assert "if it runs next: then ε" in out


def test_the_figures_add_up_and_never_flatter(joined: Play) -> None:
    reserve(joined, joined.approved(name="first"))
    reserve(joined, joined.approved(name="second", rounds=100))
    (told,) = json.loads(joined("budget", "--json").out)
    assert math.isclose(told["epsilon_spent"] + told["epsilon_left"], told["epsilon_total"])
    assert math.isclose(sum(one["share"] for one in told["spent_on"]), told["share_used"])
    line = next(line for line in joined("budget").out.splitlines() if line.startswith("spent"))
    assert float(line.split()[2]) >= told["epsilon_spent"]
    assert float(line.split()[5]) <= told["epsilon_left"]


def test_a_plan_may_be_asked_about_and_need_not_fit(joined: Play) -> None:
    _, path = joined.sign(name="greedy", rounds=1900, privacy={"noise_multiplier": 0.5})
    out = joined("budget", "--plan", path).out
    assert "greedy" in out
    assert "does not fit" in out
    (told,) = json.loads(joined("budget", "--plan", path, "--json").out)
    assert told["next"][0]["fits"] is False


def test_what_the_policy_refuses_is_no_next_plan(joined: Play) -> None:
    joined("review", joined.sign(name="greedy", rounds=3000)[1])
    (told,) = json.loads(joined("budget", "--json").out)
    assert told["next"] == []


def test_it_works_while_the_node_holds_the_ledger(joined: Play) -> None:
    with ledger(joined):
        assert joined("budget").code == 0


def test_a_lost_ledger_is_no_empty_one(joined: Play) -> None:
    joined.site.ledger.unlink()
    ended = joined("budget")
    assert ended.code == 13
    assert ended.out == ""
    assert "recover" in ended.err
