"""Alerts: a function of the metrics, said once when they begin and once when they end."""

import io
import json
import math

import pytest
from medseg_agents.runs.alerts import ALERTS, active_alerts, series_of
from medseg_agents.runs.divergence import TrainingDiverged
from medseg_agents.runs.log import ALERTS_FILE, RunLog, read_progress
from rich.console import Console

NAN, INF = math.nan, math.inf
CLIPPED, MISMATCH = "completion_length/clipped_ratio", "sampling/max_ratio_deviation"

TABLE = [
    # metric, values of its rows, alert that is active ("" for none), words of its text
    ("frac_reward_zero_std", [1, 1, 1], "equal_rewards", "all groups have equal reward"),
    ("frac_reward_zero_std", [0, 0.9, 0.95, 0.97], "equal_rewards", "94% of groups"),
    ("frac_reward_zero_std", [1, 1], "", ""),  # too few rows to say
    ("frac_reward_zero_std", [1, 1, 1, 0.5], "", ""),
    (CLIPPED, [0.1, 0.2, 0.3], "completions_cut", "20% of completions ran into"),
    (CLIPPED, [0.5, 0.0, 0.05, 0.05], "", ""),
    ("valid_rate", [0.0, 0.01, 0.0], "valid_calls", "0.3% of turns make a valid call"),
    ("valid_rate", [0.9, 0.9, 0.9, 0.5, 0.4, 0.3], "valid_calls", "40% of turns make one"),
    ("valid_rate", [0.9, 0.9, 0.9, 0.6, 0.5, 0.5], "", ""),
    ("valid_rate", [0.1, 0.2, 0.3, 0.9, 0.9, 0.9], "", ""),
    (MISMATCH, [0.6, 0.7, 0.8], "mismatch", "is 0.7, above 0.5"),
    (MISMATCH, [0.01, 0.02, 0.9], "", ""),
    ("entropy", [1, 1, 1, 0.05, 0.05, 0.05], "entropy_collapse", "it began at 1"),
    ("entropy", [1, 1, 1, 0.2, 0.2, 0.2], "", ""),
    ("entropy", [0.01, 0.01, 0.01], "", ""),  # a model may begin with little
    ("entropy", [0, 0, 0, 0, 0, 0], "", ""),
    ("approx_kl", [0.2, 0.2, 0.2], "kl", "approx_kl is 0.2, above 0.1"),
    ("train/approx_kl", [0.2, 0.2, 0.2], "kl", "train/approx_kl"),
    ("kl", [2, 2, 2], "kl", "kl is 2, above 1"),
    ("kl", [0.2, 0.2, 0.2], "", ""),
    ("explained_variance", [0.01] * 10, "critic", "advantages are noise"),
    ("train/explained_variance", [-3.0] * 10, "critic", "-3.00"),
    ("explained_variance", [0.0] * 9, "", ""),
    ("explained_variance", [0.0] * 9 + [0.9], "", ""),
    ("explained_variance", [NAN] * 10, "", ""),
    ("grad_norm", [1, INF], "gradient_norm", "the gradient norm is inf"),
    ("grad_norm", [NAN], "gradient_norm", "nan"),
    ("grad_norm", [NAN, 1], "", ""),
    ("val/dice", [0, 0, 0], "", ""),
]


@pytest.mark.parametrize("metric, values, alert, words", TABLE)
def test_alerts_follow_from_the_metrics_alone(metric, values, alert, words):
    # Rows of validation lie between, without the metric.
    rows = [row for value in values for row in ({metric: value}, {"val/return": 0.0})]
    active = active_alerts(series_of(rows))
    assert list(active) == ([alert] if alert else [])
    if alert:
        assert words in active[alert]
        assert next(one for one in ALERTS if one.name == alert).way_out in active[alert]


def test_every_alert_is_in_the_table():
    assert {alert for _, _, alert, _ in TABLE} - {""} == {alert.name for alert in ALERTS}


def events(folder):
    lines = (folder / ALERTS_FILE).read_text().splitlines()
    return [(row["step"], row["alert"], row["event"]) for row in map(json.loads, lines)]


def test_a_run_says_an_alert_when_it_begins_and_when_it_ends_also_when_resumed(tmp_path):
    output = io.StringIO()
    console = Console(file=output, width=300)

    def write(log, steps, share):
        for step in steps:
            log.write(step, {"frac_reward_zero_std": share})

    with RunLog(tmp_path, 20, console=console, unit="iterations", log_to=()) as log:
        write(log, range(1, 6), 1.0)
    assert events(tmp_path) == [(3, "equal_rewards", "began")]
    with RunLog(tmp_path, 20, step=4, console=console, unit="iterations", log_to=()) as log:
        write(log, (5,), 1.0)  # goes on: nothing is said again
        write(log, (6, 7), 0.0)
    with RunLog(tmp_path, 20, step=5, console=console, unit="iterations", log_to=()) as log:
        write(log, (6, 7), 0.0)  # what is played again is said again
    assert events(tmp_path) == [(3, "equal_rewards", "began"), (6, "equal_rewards", "ended")]
    text = output.getvalue()
    assert text.count("alert: all groups have equal reward") == 1
    assert text.count("iterations 6: alert equal_rewards has ended") == 2
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("name", ["loss", "train/value_loss", "clone/loss", "grad_norm"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_loss_that_is_not_finite_ends_a_run_and_is_named(tmp_path, name, value):
    with pytest.raises(TrainingDiverged) as caught:
        with RunLog(tmp_path, 9, console=Console(quiet=True), lower="lr", log_to=()) as log:
            log.write(1, {name: 1.0, "dice": NAN, "train/explained_variance": NAN})
            log.write(2, {name: value, "return": 0.5})
    assert f"steps 2 of 9: {name} is {value}" in str(caught.value)
    assert "Lower lr" in str(caught.value)
    assert read_progress(tmp_path)[-1]["return"] == 0.5
