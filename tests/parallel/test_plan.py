"""What is planned against what is held and sent."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import transnormer_edu
from tests.models import linear
from tests.parallel.held import CASES, CONTEXT, ROWS, SIZES
from tests.parallel.start import torchrun
from transnormer_edu import TransNormerConfig
from transnormer_edu.config import PRESETS
from transnormer_edu.parallel import MeshShape
from transnormer_edu.parallel.memory import PARTS, WORKSPACE, Job, moments
from transnormer_edu.parallel.plan import fitting, jobs, needs
from transnormer_edu.parallel.traffic import messages, sent

RESULTS = sorted((Path(transnormer_edu.__file__).parent / "results").glob("plan_*.json"))


@pytest.fixture(scope="module")
def really(tmp_path_factory):
    """What four processes held and sent."""
    path = tmp_path_factory.mktemp("held") / "held.json"
    torchrun(4, "tests/parallel/held.py", path, seconds=300)
    return dict(zip(CASES, json.loads(path.read_text()), strict=True))


def job_of(axes, recompute, gate):
    return Job(linear(**SIZES, gate=gate).config, MeshShape(*axes), ROWS, CONTEXT, recompute)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weights_gradients_and_moments_are_those_of_real_processes(really, case):
    planned = moments(job_of(*case))["update"]
    for part in ("weights", "gradients", "optimiser"):
        held = [process[part] for process in really[case]]
        assert planned[part] == pytest.approx(sum(held) / len(held), rel=1e-3), part


@pytest.mark.parametrize("case", CASES, ids=str)
def test_messages_are_those_of_real_processes(really, case):
    job, counted = job_of(*case), [process["sent"] for process in really[case]]
    planned = sent(job)
    for operation in ("all-gather", "reduce-scatter", "all-reduce"):
        assert {process.get(operation, 0) for process in counted} == {planned.get(operation, 0)}
    assert max(process.get("send", 0) for process in counted) == planned.get("send", 0)


PRETENDED = {
    "one GPU": Job(TransNormerConfig.preset("385m"), MeshShape(), 2, 8192),
    "recomputing": Job(TransNormerConfig.preset("3b"), MeshShape(), 1, 16384, True),
    "data": Job(TransNormerConfig.preset("7b"), MeshShape(data=8), 8, 4096),
    "sequence": Job(TransNormerConfig.preset("1b"), MeshShape(sequence=4), 1, 32768),
    "sequence, recomputing": Job(TransNormerConfig.preset("1b"), MeshShape(1, 4), 1, 65536, True),
    "tensor": Job(TransNormerConfig.preset("13b"), MeshShape(tensor=8), 1, 16384),
    "all": Job(TransNormerConfig.preset("15b"), MeshShape(2, 2, 2), 2, 16384, True),
}


@pytest.mark.parametrize("job", PRETENDED.values(), ids=PRETENDED)
def test_the_peak_is_that_of_the_operations_on_a_gpu(monkeypatch, job):
    """Published widths, three layers; every operation, on tensors without numbers."""
    pytest.importorskip("triton")
    from tests.parallel.pretend import update

    job = replace(job, config=replace(job.config, layers=3))
    found = update(job, monkeypatch)
    assert needs(job) - WORKSPACE == pytest.approx(found.peak, rel=0.04)
    assert found.sent.bytes["all-reduce"] == sent(job)["all-reduce"]


@pytest.mark.parametrize(
    "shape", [MeshShape(), MeshShape(sequence=2), MeshShape(tensor=2)], ids=str
)
def test_after_a_forward_there_is_what_is_kept(monkeypatch, shape):
    pytest.importorskip("triton")
    from tests.parallel.pretend import update

    config = replace(TransNormerConfig.preset("1b"), layers=3)
    job = Job(config, shape, 2, 4096)
    parts = moments(job)["loss"]
    kept = sum(parts[part] for part in PARTS if part != "buffers")
    words, x = 4 * job.embedding, 2 * config.dim * job.tokens
    gradients = words + (2 if shape.tensor > 1 else 1) * x  # of the words and of x
    planned = kept + gradients + words  # the words are together until the end
    assert planned == pytest.approx(update(job, monkeypatch).forward, rel=0.002)


def test_states_cost_the_same_at_any_length():
    config = TransNormerConfig.preset("7b")
    short, long = (
        {m.what: m.bytes for m in messages(Job(config, MeshShape(1, 8, 1), 1, n, True))}
        for n in (8192, 2**21)
    )
    assert short == long
    short, long = (
        {m.what: m.bytes for m in messages(Job(config, MeshShape(1, 1, 8), 1, n))}
        for n in (8192, 2**21)
    )
    assert long["outputs"] == 256 * short["outputs"]
    assert long["squares"] == 256 * short["squares"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_somewhere_and_what_fits_is_sorted(preset):
    config = TransNormerConfig.preset(preset)
    found = fitting(config, gpus=128, memory=80e9, context=2**20)
    assert all(needs(job) <= 80e9 for job in found)
    assert [job.recompute for job in found] == sorted(job.recompute for job in found)
    fits = set(map(str, found))
    assert all(needs(job) > 80e9 for job in jobs(config, 128, 2**20) if str(job) not in fits)


def test_more_gpus_and_recomputing_need_less():
    config = TransNormerConfig.preset("7b")
    one = needs(Job(config, MeshShape(), 1, 65536))
    assert needs(Job(config, MeshShape(), 1, 65536, True)) < one / 2
    for axis in ("sequence", "tensor"):
        assert needs(Job(config, MeshShape(**{axis: 8}), 1, 65536)) < one / 2
    assert needs(Job(config, MeshShape(data=8), 8, 65536)) < one


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "given, sentence",
    [
        (dict(gpus=0), "gpus is 0, expected a whole number of at least 1"),
        (dict(gpus=2.5), "gpus is 2.5, expected a whole number of at least 1"),
        (dict(memory=0), "memory is 0, expected bytes of one GPU, above 0"),
        (dict(memory=float("nan")), "memory is nan, expected bytes of one GPU, above 0"),
        (dict(memory="80"), "memory is '80', expected bytes of one GPU, above 0"),
        (dict(context=1), "context is 1, expected a whole number of at least 2"),
        (dict(rows=0), "batch_size is 0, expected a whole number of at least 1"),
        (dict(gpus=7, rows=3, context=30), "no mesh of 7 GPUs can share this"),
        (dict(memory=8e9), "this needs at least .* GB on each of 4 GPUs .*: take more GPUs"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_sentence(given, sentence):
    sizes = dict(gpus=4, memory=80e9, context=4096) | given
    with pytest.raises(ValueError, match=sentence) as error:
        fitting(TransNormerConfig.preset("7b"), **sizes)
    assert "\n" not in str(error.value)


MEASURED = {
    f"{file.stem}-{run['preset']}-{run['context']}": run
    for file in RESULTS
    for run in json.loads(file.read_text())["runs"]
}


@pytest.mark.parametrize("run", MEASURED.values(), ids=MEASURED)
def test_the_peak_is_what_a_gpu_counted(run):
    """results/plan_*.json, made by speed/plan_memory.py: the most in a real update."""
    config = TransNormerConfig.preset(run["preset"])
    job = Job(config, MeshShape(), run["rows"], run["context"], run["recompute"])
    planned = {moment: sum(parts.values()) for moment, parts in moments(job).items()}
    counted = run["measured"]
    assert max(planned.values()) == pytest.approx(max(counted.values()), rel=0.02)
    assert planned["update"] == pytest.approx(counted["update"], rel=0.03)
