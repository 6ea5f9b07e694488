"""Loss files without this package: equal to its losses, self-contained, readable, complete."""

from __future__ import annotations

import ast
import itertools
import json
import math
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import torch
from hypothesis import given, settings
from losses.standalone_files import (
    COUNTS,
    check_equal,
    imported,
    of_package,
    run,
    standalone,
    steps,
)
from losses.variants import AXES, configs, each
from pydantic import BaseModel, ValidationError
from torch import Tensor

from study.config.shipped import SEARCH_SPACES, shipped
from study.core.errors import InputError
from study.losses import PRESETS, LossConfig
from study.losses.config import AXES as KNOWN
from study.losses.family import family
from study.losses.standalone.equivalents import HAS, LIBRARIES, equivalent_source
from study.losses.standalone.source import loss_source
from study.metrics import build_decision
from study.search.sampler import stratified
from study.space.search_space import load_space

ROOT = Path(__file__).parents[2]
LACKING = {"mixed_averages", "preset_kd", "preset_jml_kd"}  # which are refused in a line
ALL = AXES | {f"preset_{name}": preset.config for name, preset in PRESETS.items()}
CONFIGS = {name: config for name, config in ALL.items() if name not in LACKING}
FEW = ("ce", "recall_ema_weight", "ohem", "boundary_jaccard", "everything")
NAMES = ("road", "the sky", 'a "quoted\\ name', "two\nlines\u2028'''")
PRIOR = [-0.1, -2.4, -4.6, -4.6]
everything = standalone(
    AXES["everything"], class_names=NAMES, decision=(0.5, PRIOR), origin=["Of study demo."]
)


# --- equal to the package -----------------------------------------------------------------------


@each(CONFIGS, FEW)
def test_value_gradient_and_state_are_those_of_the_package(config: Any, tmp_path: Path) -> None:
    check_equal(standalone(config), tmp_path)


@pytest.mark.slow
@each({name: CONFIGS[name] for name in FEW}, ())
def test_they_are_on_larger_pictures(config: Any, tmp_path: Path) -> None:
    check_equal(standalone(config), tmp_path, (3, 37, 50))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped(SEARCH_SPACES)))
def test_they_are_at_many_points_of_a_shipped_space(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    for number in range(12):
        params = stratified(space, seed=3, number=number)
        check_equal(standalone(space.resolve(params).loss), tmp_path)


@pytest.mark.slow
def test_they_are_at_any_setting(tmp_path: Path) -> None:
    @settings(max_examples=80, deadline=None, derandomize=True, database=None)
    @given(configs)
    def check(config: Any) -> None:
        check_equal(standalone(config), tmp_path)

    check()


def test_manual_weights_of_an_absent_class(tmp_path: Path) -> None:
    weights = {"scheme": "manual", "weights": [1.0, 0.0, 2.5, 7.0]}
    check_equal(standalone({"class_weights": weights, "normalizer": "weight"}), tmp_path)


def test_the_rule_is_that_of_the_export(tmp_path: Path) -> None:
    decide = imported(loss_source(everything), tmp_path).decide
    logits, _ = steps(torch.float32)[0]
    rule = build_decision({"decision": {"tau": 0.5, "log_prior": PRIOR}})
    assert torch.equal(decide(logits), rule(logits))
    assert not torch.equal(decide(logits), logits.argmax(1))
    assert not hasattr(imported(loss_source(standalone({})), tmp_path), "decide")


def test_a_batch_in_half_precision_is_computed_in_float32(tmp_path: Path) -> None:
    loss = standalone(AXES["jaccard"])
    theirs = imported(loss_source(loss), tmp_path).Loss()
    logits, labels = steps(torch.float32)[0]
    half = logits.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = theirs(half, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, of_package(loss)(half, labels))


def test_recall_goes_on_where_the_loss_is_cast_with_its_network(tmp_path: Path) -> None:
    loss = imported(loss_source(standalone(AXES["recall"])), tmp_path).Loss().bfloat16()
    logits, labels = steps(torch.float32)[0]
    for _ in range(2):
        assert loss(logits, labels).isfinite()
    assert loss.recall.dtype == torch.bfloat16


def test_logits_of_other_classes_are_refused(tmp_path: Path) -> None:
    loss = imported(loss_source(standalone({})), tmp_path).Loss()
    with pytest.raises(ValueError, match=r"\(B, 4, H, W\), got \(2, 5, 3, 3\)"):
        loss(torch.zeros(2, 5, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(1, 3, 3, dtype=torch.int64),  # of one picture for a batch of two
        torch.zeros(2, 2, 3, dtype=torch.int64),
        torch.zeros(2, 3, 3),  # such as the pixels of a mask over 255
        torch.zeros(2, 3, 3, dtype=torch.bool),
        torch.zeros(2, 4, 3, 3, dtype=torch.int64),  # one-hot
    ],
    ids=lambda labels: f"{labels.dtype}{tuple(labels.shape)}",
)
def test_labels_of_another_shape_or_kind_are_refused(labels: Tensor, tmp_path: Path) -> None:
    loss = imported(loss_source(standalone({})), tmp_path).Loss()
    with pytest.raises(ValueError, match=r"labels must be integers of shape \(2, 3, 3\), got"):
        loss(torch.zeros(2, 4, 3, 3), labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_integers_of_any_size_and_a_channel_of_their_own_are_labels(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    config = AXES["everything"]
    module = imported(loss_source(standalone(config)), tmp_path)
    logits, labels = steps(torch.float32)[0]
    expected = module.Loss()(logits, labels)
    for shape in (labels.shape, (len(labels), 1, *labels.shape[1:])):
        assert module.Loss()(logits, labels.to(dtype).reshape(shape)) == expected


def _rank(rank: int, store: Path, text: str, queue: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    loss = imported(text, store.parent).Loss()
    logits, labels = steps(torch.float32)[0]
    loss(logits[rank : rank + 1], labels[rank : rank + 1])
    queue.put(loss.recall.tolist())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_have_the_recall_of_both_halves(tmp_path: Path) -> None:
    loss = standalone(AXES["recall_ema_weight"])
    context = torch.multiprocessing.get_context("fork")
    queue = context.Queue()
    ranks = []
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        given = (rank, tmp_path / "store", loss_source(loss), queue)
        ranks.append(context.Process(target=_rank, args=given))
        ranks[-1].start()
    found = [queue.get(timeout=240) for _ in ranks]
    for process in ranks:
        process.join()
    whole = of_package(loss)
    whole(*steps(torch.float32)[0])
    assert whole.recall is not None
    assert found == [whole.recall.value.tolist()] * 2


# --- self-contained -----------------------------------------------------------------------------

CHILD = """
import importlib.util, json, sys
sys.modules["study"] = None  # from here on, importing it fails
import torch
for path, batches in json.load(sys.stdin):
    spec = importlib.util.spec_from_file_location("loss", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loss, found = module.Loss(), []
    for logits, labels in batches:
        logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        loss(logits, torch.tensor(labels)).backward()
        found.append([float(logits.grad[0, 0].sum()), loss.digest, module.DIGEST])
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_file_needs_torch_alone(tmp_path: Path) -> None:
    logits, labels = steps(torch.float64)[0]
    again = [(logits.tolist(), labels.tolist())] * 2
    losses = [standalone(AXES[name]) for name in FEW]
    given = []
    for number, loss in enumerate(losses):
        path = tmp_path / f"{number}.py"
        path.write_text(loss_source(loss), encoding="utf-8")
        given.append((str(path), again))
    done = subprocess.run(
        [sys.executable, "-I", "-c", CHILD],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for loss, line in zip(losses, done.stdout.splitlines(), strict=True):
        expected = run(of_package(loss), [(logits, labels), (logits, labels), (logits, labels)])
        for (total, *digests), (_, gradient) in zip(json.loads(line), expected[:2], strict=True):
            assert total == pytest.approx(float(gradient[0, 0].sum()), rel=1e-9, abs=1e-15)
            assert digests == [loss.digest] * 2


@each(CONFIGS, FEW)
def test_a_file_imports_what_it_uses_and_nothing_of_this_package(config: Any) -> None:
    tree = ast.parse(loss_source(standalone(config)))
    imports = [one for one in ast.walk(tree) if isinstance(one, ast.Import | ast.ImportFrom)]
    assert {line.split()[1].split(".")[0] for line in map(ast.unparse, imports)} <= {
        "__future__",
        "collections",
        "math",
        "torch",
    }


# --- readable -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_are_formatted_and_clean(tmp_path: Path) -> None:
    losses = [standalone(config) for config in CONFIGS.values()]
    texts = [loss_source(loss) for loss in [*losses, everything]]
    texts += [equivalent_source("smp", standalone({})), equivalent_source("mmseg", losses[0])]
    texts.append(equivalent_source("mmseg", standalone(MEDIAN, class_names=NAMES)))
    for number, text in enumerate(texts):
        (tmp_path / f"loss_{number}.py").write_text(text, encoding="utf-8")
    options = ["--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
    for command in (["check", "--no-cache"], ["format", "--no-cache", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_has_only_what_its_config_uses() -> None:
    plain = loss_source(standalone({}))
    assert "recall" not in plain.partition("import annotations")[2]
    definitions = [one.name for one in ast.parse(plain).body if hasattr(one, "name")]
    assert definitions == ["Loss"]
    assert len(plain.splitlines()) < 90
    pooled = ast.parse(loss_source(standalone({"pooling": {"kind": "max"}})))
    assert [one.name for one in pooled.body if hasattr(one, "name")] == ["Loss", "max_pooling"]


def test_the_head_says_what_it_is_and_holds_the_config() -> None:
    head = loss_source(everything).partition("from __future__")[0]
    words = " ".join(head.replace("#", " ").split())
    for text in ("Of study demo.", "2106.14917", "1704.02966", "2302.05666", "decide(network"):
        assert text in words
    tree = textwrap.dedent(
        "\n".join(line[2:] for line in head.splitlines() if line.startswith("#     "))
    )
    import yaml

    config = yaml.safe_load(tree[tree.index("loss:") :])["loss"]
    assert LossConfig.model_validate(config) == everything.config


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    module = imported(loss_source(everything), tmp_path)
    assert module.Loss.class_names == NAMES
    strange = standalone({}, origin=['Of study """\n1/0\n# \'x\'\x0c.'])
    imported(loss_source(strange), tmp_path)


# --- complete -----------------------------------------------------------------------------------

NUMBERS = (0.25, 0.5, 1.5, 3, 5)


def _trees(annotation: Any) -> Iterator[Any]:
    """Values of a field as a config file has them, two at least: each member of a union, each
    literal, several numbers; what a member needs is filled in."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for one in arguments:
            literal = get_origin(one) is Annotated and get_origin(get_args(one)[0]) is Literal
            yield from itertools.islice(_trees(one), None if literal else 1)
    elif origin is Literal:
        yield from arguments
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        needed = [(key, one) for key, one in fields if one.is_required() or _is_tag(one.annotation)]
        yield {key: next(_trees(one.annotation)) for key, one in needed}
    elif origin is tuple:
        yield from ([number, 1.0, 2.0, 3.0] for number in NUMBERS)
    elif annotation is type(None):
        yield None
    else:
        yield from NUMBERS


def _is_tag(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def _members(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for one in get_args(annotation):
            yield from _members(one)


def _paths(model: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], Any]]:
    """Each field of a config and of all configs below it: its path, the member of each union that
    has it, its annotation."""
    for key, field in model.model_fields.items():
        if not _is_tag(field.annotation) and not isinstance(field.annotation, type(BaseModel)):
            yield (key,), {}, field.annotation
        for member in _members(field.annotation):
            tree = next(_trees(member))
            for path, there, annotation in _paths(member):
                yield (key, *path), {key: tree | dict(there)}, annotation


BASE = AXES["everything"] | {"smoothing_region": {"kind": "boundary"}}


def _code(tree: Mapping[str, Any]) -> str | None:
    try:
        text = loss_source(standalone(tree))
    except (ValidationError, InputError):  # what has no form is refused
        return None
    code = text.partition("from __future__")[2]
    return "\n".join(line for line in code.splitlines() if not line.startswith("DIGEST"))


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = path
    return tree | {key: _set(dict(tree.get(key) or {}), tuple(rest), value) if rest else value}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "there", "annotation"),
    [
        pytest.param(*case, id="/".join(case[0]))
        for case in _paths(LossConfig)
        if case[0][0] != "distillation"
    ],
)
def test_every_key_of_a_loss_has_a_part_in_its_file(
    path: tuple[str, ...], there: Mapping[str, Any], annotation: Any
) -> None:
    """No two values of a key give the same code: a new axis needs its part in the template."""
    base = BASE | dict(there)
    base["jaccard"] = BASE["jaccard"] | base["jaccard"]
    found = [_code(_set(base, path, value)) for value in _trees(annotation)]
    codes = [code for code in found if code is not None]
    assert len(codes) >= 2, "the values of this key are not known to this test"
    assert len(set(codes)) == len(codes)


def test_every_axis_of_the_family_has_a_part() -> None:
    families = [family(standalone(config).config) for config in CONFIGS.values()]
    axes = {axis for named in families for axis in named.split("+")} - {"ce"}
    assert axes == KNOWN.keys() - {"distillation"}
    assert all(axis.parts for name, axis in KNOWN.items() if name != "distillation")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mixed_averages", "^loss/jaccard/average: there is no form of a mixture of averages"),
        ("preset_kd", "^loss/distillation: there is no form of distillation from a teacher"),
        ("preset_jml_kd", "^loss/distillation: there is no form of distillation from a teacher"),
    ],
)
def test_what_has_no_form_is_refused_in_a_line(name: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        loss_source(standalone(ALL[name]))


def test_the_digest_names_the_config() -> None:
    def digest(config: Any) -> str:
        return standalone(config, class_counts=COUNTS).digest

    assert digest({}) == digest({"focal_gamma": 0.0}) == "44136fa355b3678a"
    inverse = {"class_weights": {"scheme": "inverse_frequency"}}
    others = [
        digest({"focal_gamma": 1.0}),
        digest({"pooling": {"kind": "max", "p": math.inf}}),
        digest({"pooling": {"kind": "max"}}),
        digest(inverse),
        digest({"class_weights": {"scheme": "median_frequency"}}),
    ]
    assert len({digest({}), *others}) == len(others) + 1


def test_the_loss_of_a_file_can_be_given_other_numbers(tmp_path: Path) -> None:
    module = imported(loss_source(everything), tmp_path)
    other = module.Loss(num_classes=2, class_weights=[1.0, 2.0], ignore_index=0)
    assert other.class_weights.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="2 class weights for 4 classes"):
        module.Loss(class_weights=[1.0, 2.0])


# --- other libraries ----------------------------------------------------------------------------


def _mmseg(
    pred: Tensor, label: Tensor, class_weight: Any = None, *, avg_non_ignore: bool
) -> Tensor:
    """CrossEntropyLoss of mmsegmentation 1.2, by its formula: the sum over valid pixels of
    w[y] * ce over the sum of w[y] (their number without weights) plus float32's epsilon."""
    assert avg_non_ignore
    counted = label != 255
    if class_weight is None:
        weight = torch.ones_like(pred[:, 0])
    else:
        weight = torch.tensor(class_weight, dtype=pred.dtype)[label]  # 255: an IndexError
    losses = -pred.log_softmax(1).gather(1, label.where(counted, 0)[:, None])[:, 0]
    total = (weight * losses).where(counted, 0).sum()
    return total / (weight.where(counted, 0).sum() + torch.finfo(torch.float32).eps)


MEDIAN = {"class_weights": {"scheme": "median_frequency"}, "normalizer": "weight"}


def test_cross_entropy_of_mmsegmentation_is_equal(tmp_path: Path) -> None:
    decode = imported(equivalent_source("mmseg", standalone({})), tmp_path).loss_decode
    assert decode == {"type": "CrossEntropyLoss", "avg_non_ignore": True}
    logits, labels = steps(torch.float32)[0]
    value = _mmseg(logits, labels, avg_non_ignore=True)
    torch.testing.assert_close(value, of_package(standalone({}))(logits, labels), rtol=1e-6, atol=0)
    loss = standalone(MEDIAN, class_names=NAMES)
    weighted = imported(equivalent_source("mmseg", loss), tmp_path)
    assert loss.digest == weighted.DIGEST
    given = dict(weighted.loss_decode)
    assert given.pop("type") == "CrossEntropyLoss"
    labels = labels.where(labels != 255, 1)
    value = _mmseg(logits, labels, **given)
    torch.testing.assert_close(value, of_package(loss)(logits, labels), rtol=1e-6, atol=0)


@pytest.mark.parametrize("config", [{}, {"label_smoothing": 0.1}], ids=["ce", "smoothing"])
def test_cross_entropy_of_segmentation_models_pytorch_is_equal(config: Any, tmp_path: Path) -> None:
    loss = standalone(config)
    module = imported(equivalent_source("smp", loss), tmp_path)
    assert loss.digest == module.DIGEST
    for logits, labels in steps(torch.float32)[:3]:
        ours, theirs = of_package(loss)(logits, labels), module.loss(logits, labels)
        torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=0)
        gradients = [torch.autograd.grad(value, logits)[0] for value in (theirs, ours)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("library", "config", "line"),
    [
        ("mmseg", AXES["recall"], "loss/recall: mmsegmentation has no equal of recall weights"),
        ("smp", AXES["recall"], "loss/recall: segmentation-models-pytorch has no equal of recall"),
        ("smp", MEDIAN, "loss/class_weights: segmentation-models-pytorch has no equal of median"),
        ("mmseg", AXES["boundary"], "loss/smoothing_region: mmsegmentation has no equal of label"),
        ("mmseg", AXES["median_frequency"], "loss/normalizer: mmsegmentation divides by the sum"),
    ],
)
def test_an_axis_without_an_equal_is_named(library: str, config: Any, line: str) -> None:
    with pytest.raises(InputError, match=rf"^{line}.*; --format python writes"):
        equivalent_source(library, standalone(config))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("axis", sorted(KNOWN))
def test_every_axis_has_an_equal_or_is_named(library: str, axis: str) -> None:
    config = next(c for c in ALL.values() if family(standalone(c).config) == axis)
    if axis in HAS[library]:
        assert equivalent_source(library, standalone(config | {"normalizer": "weight"}))
        return
    with pytest.raises(InputError) as raised:
        equivalent_source(library, standalone(config))
    assert raised.value.key == f"loss/{KNOWN[axis].key}"
