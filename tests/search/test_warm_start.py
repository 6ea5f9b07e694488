"""A warm start: what a space takes over from earlier studies, and what the model makes of it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from ledgers import make_study
from one_worker import proposals
from scipy.stats import spearmanr

from study.ledger.records import EndRecord, StudyRecord, decode, encode
from study.ledger.state import State
from study.search.history import History, Observation
from study.search.model import candidates, expectation, weights
from study.search.sampler import MIN_JUDGED, MODEL, RANDOM, WARM_START, stratified
from study.search.warm_start import ELSEWHERE, STUDIES, THINNED, UNJUDGED, Prior, taken_from
from study.space.search_space import SearchSpace, load_space
from study.space.tree_space import load_any
from study.storage.studies import load

RANGE = {"float": {"low": 0.3, "high": 0.9}}
EMA = {"choice": {"off": None, "ema": {"ema_momentum": 0.9}}}
LR = {"float": {"low": 0.25, "high": 4.0, "log": True}}
SPACE: dict[str, Any] = {
    "loss": {"recall": EMA, "jaccard": {"choice": {"off": {"mix": 0.0}, "on": {"mix": RANGE}}}},
    "optimizer": {"lr_scale": LR},
    "study": {"objectives": ["val/macc", "val/miou"]},
}
PLANE = {"x": {"float": {"low": 0.0, "high": 1.0}}, "y": {"float": {"low": 0.0, "high": 1.0}}}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> State:
    return load(make_study(tmp_path_factory.mktemp("studies") / "one"))


@pytest.fixture(scope="module")
def plane() -> SearchSpace:
    return load_any(PLANE)


def prior_of(space: SearchSpace, value: Any, count: int = 40) -> dict[str, Any]:
    """The line of a ledger of an earlier study that found this value of each point."""
    history = History(
        space,
        [
            Observation(one, {3: {"objective": value(one)}})
            for one in (stratified(space, seed=9, number=number) for number in range(count))
        ],
    )
    standings = history.standings().tolist()
    points = [
        [stratified(space, seed=9, number=number), standings[number]] for number in range(count)
    ]
    return {STUDIES: [{"points": points}]}


def peak(params: Any) -> float:
    return -((params["x"] - 0.8) ** 2) - (params["y"] - 0.2) ** 2


def test_a_space_takes_over_the_trials_whose_configs_it_holds(earlier: State) -> None:
    found = taken_from("one", earlier, load_space(SPACE))
    searched = [
        t for t in earlier.trials.values() if t.stage in ("baseline", "reference", "search")
    ]
    assert found["trials"] == len(searched) == 21
    inside = [t for t in searched if t.label in ("ce", "jml") or t.stage == "reference"]
    inside += [t for t in searched if t.stage == "search" and 0.3 <= _mix(t) <= 0.9]
    assert len(found["points"]) == len(inside) and found["left_out"] == {
        ELSEWHERE: 21 - len(inside)
    }
    assert found["lacks"] == []
    points = {json.dumps(params, sort_keys=True): standing for params, standing in found["points"]}
    jml = {"loss/recall": "off", "loss/jaccard": "on", "loss/jaccard/mix": 0.75,
           "optimizer/lr_scale": 1.0}  # fmt: skip
    assert json.dumps(jml, sort_keys=True) in points


def _mix(trial: Any) -> float:
    return float(trial.config["loss"]["jaccard"]["mix"])


def test_the_standings_are_those_of_the_same_metric(earlier: State) -> None:
    found = taken_from("one", earlier, load_space(SPACE))
    swapped = {**SPACE, "study": {"objectives": ["val/miou", "val/macc"]}}
    other = taken_from("one", earlier, load_space(swapped))
    assert [s[::-1] for _, s in found["points"]] == [s for _, s in other["points"]]
    assert any(s[0] != s[1] for _, s in found["points"])
    unlike = {**SPACE, "study": {"objectives": ["val/tuned/miou", "val/miou"]}}
    mixed = taken_from("one", earlier, load_space(unlike))
    assert mixed["lacks"] == ["val/tuned/miou"]
    for (_, both), (_, one) in zip(other["points"], mixed["points"], strict=True):
        assert one == pytest.approx([np.mean(both), both[0]], abs=1e-4)


def test_what_the_machine_ended_or_nobody_judged_is_left_out(earlier: State) -> None:
    state = dataclasses.replace(earlier, trials=dict(earlier.trials))
    trial = dataclasses.replace(state.trials["t0000"])
    trial.end = EndRecord("t0000", "failed", "the node is gone", 3, by_machine=True)
    state.trials["t0000"] = trial
    trial = dataclasses.replace(state.trials["t0004"], rungs={})
    trial.end = None
    state.trials["t0004"] = trial
    before = taken_from("one", earlier, load_space(SPACE))
    found = taken_from("one", state, load_space(SPACE))
    assert found["left_out"][UNJUDGED] == 2
    assert len(found["points"]) == len(before["points"]) - 2


def test_a_config_of_a_constant_that_is_not_the_spaces_is_left_out(earlier: State) -> None:
    """The same leaves, below another constant, are another config."""
    space = load_space({**SPACE, "loss": {**SPACE["loss"], "label_smoothing": 0.1}})
    assert taken_from("one", earlier, space)["points"] == []


def test_of_very_many_trials_a_part_is_taken_over(
    earlier: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.search.history.MAX_POINTS", 6)
    found = taken_from("one", earlier, load_space(SPACE))
    assert len(found["points"]) == 6
    assert found["left_out"][THINNED] + found["left_out"][ELSEWHERE] + 6 == 21


def test_a_ledger_holds_a_warm_start(earlier: State) -> None:
    space = load_space(SPACE)
    tree = {STUDIES: [taken_from("one", earlier, space)]}
    assert earlier.study is not None and earlier.study.prior is None
    line = decode(encode(dataclasses.replace(earlier.study, prior=tree)))
    assert isinstance(line, StudyRecord) and line.prior == tree
    encoder = History(space).encoder
    first, again = Prior.of(tree, space, encoder), Prior.of(line.prior, space, encoder)
    rows = encoder.uniform(20, np.random.default_rng(0))
    for objective in (0, 1):
        assert np.array_equal(first.means(objective)[0](rows), again.means(objective)[0](rows))


def test_a_narrower_space_on_resume_keeps_what_lies_in_it(plane: SearchSpace) -> None:
    tree = prior_of(plane, peak)
    narrow = load_any({**PLANE, "x": {"float": {"low": 0.0, "high": 0.5}}})
    (rows, _), = Prior.of(tree, narrow, History(narrow).encoder).points  # fmt: skip
    kept = [params for params, _ in tree[STUDIES][0]["points"] if params["x"] <= 0.5]
    assert 0 < len(rows) == len(kept) < 40
    nothing = load_any({"z": PLANE["x"]})
    assert not Prior.of(tree, nothing, History(nothing).encoder)


def test_an_expectation_knows_the_points_between(plane: SearchSpace) -> None:
    encoder = History(plane).encoder
    prior = Prior.of(prior_of(plane, peak), plane, encoder)
    rows = encoder.uniform(200, np.random.default_rng(3))
    expected = prior.means(0)[0](rows)
    truth = [peak(encoder.params(row)) for row in rows]
    assert spearmanr(expected, truth)[0] > 0.95


def test_a_weight_is_learnt_from_the_agreement(plane: SearchSpace) -> None:
    encoder, rng = History(plane).encoder, np.random.default_rng(0)
    rows = encoder.uniform(24, rng)
    scores = np.array([peak(encoder.params(row)) for row in rows])
    scores = (scores - scores.mean()) / scores.std()
    mean = expectation(rows, scores, encoder)
    near = np.exp(-3 * ((rows[:, None] - rows[None]) ** 2).sum(-1))
    terms = np.stack([mean(rows), rng.normal(size=24)], 1)
    terms = terms - terms.mean(0)
    agreeing, idle = weights(near, 0.15, scores, terms)
    assert agreeing > 0.8 and idle < 0.2
    assert weights(near, 0.15, scores, -terms[:, [0]]) == 0.0
    few = [weights(near[:n, :n], 0.15, -scores[:n], terms[:n, [0]])[0] for n in (2, 8, 24)]
    assert few[0] > few[1] >= few[2] == 0.0


def test_half_of_the_first_proposals_are_those_of_the_earlier_study(plane: SearchSpace) -> None:
    tree = prior_of(plane, peak)
    found = proposals(plane, peak, MIN_JUDGED + 14, seed=1, earlier=tree)
    first = [by for by, _ in found[:MIN_JUDGED]]
    assert set(first) == {WARM_START, RANDOM}
    near = [peak(params) for by, params in found if by == WARM_START]
    assert min(near) > -0.06  # the median of random points is at -0.4
    assert {by for by, _ in found[MIN_JUDGED:]} <= {MODEL, RANDOM}
    assert MODEL in {by for by, _ in found[MIN_JUDGED:]}
    modelled = [peak(params) for by, params in found if by == MODEL]
    assert np.mean(modelled[:4]) > -0.05
    assert found == proposals(
        plane, peak, MIN_JUDGED + 14, seed=1, earlier=json.loads(json.dumps(tree))
    )


def test_a_study_that_misleads_is_overruled(plane: SearchSpace) -> None:
    tree = prior_of(plane, lambda params: -peak(params))
    found = proposals(plane, peak, 24, seed=1, earlier=tree)
    late = [peak(params) for by, params in found[16:] if by == MODEL]
    assert np.mean(late) > -0.06


def test_what_own_trials_show_corrects_an_earlier_study_that_is_a_little_off(
    plane: SearchSpace,
) -> None:
    """Both have a peak, at x = 0.5 and 0.8; their sum would have it between."""
    encoder = History(plane).encoder
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        own, other = encoder.uniform(40, rng), encoder.uniform(60, rng)
        worth = [[peak({"x": x + off, "y": y}) for x, y in rows]
                 for rows, off in ((own, 0.0), (other, 0.3))]  # fmt: skip
        mean = expectation(other, np.array(worth[1]), encoder)
        drawn = candidates(encoder, own, np.array(worth[0]), np.empty((0, 2)), rng, means=[mean])
        found.append(np.median(drawn[:15, 0]))
    assert np.median(found) > 0.71


def test_nothing_changes_without_a_warm_start(plane: SearchSpace) -> None:
    found = proposals(plane, peak, 12, seed=1, earlier=None)
    assert [by for by, _ in found[:MIN_JUDGED]] == [RANDOM] * MIN_JUDGED
    assert found == proposals(plane, peak, 12, seed=1, earlier={STUDIES: []})
