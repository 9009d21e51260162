"""The doctor finds what is missing and says how to mend it; it never falls ill itself."""

import collections
import sys

import pytest

from transnormer_edu import doctor

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture
def without(monkeypatch):
    """Makes some packages look as if they were not installed."""

    def hide(*names):
        monkeypatch.setattr(doctor, "_installed", lambda name: name not in names)

    return hide


def test_here_nothing_that_is_needed_is_missing():
    findings = doctor.checks()
    assert doctor.healthy(findings), [finding for finding in findings if not finding.ok]
    assert [f.name for f in findings][:2] == ["Python", "PyTorch"]
    assert all(finding.what for finding in findings)


def test_every_bad_finding_can_be_mended(without, monkeypatch, tmp_path):
    without("torch", "triton", "tokenizers", "jupyterlab")
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    bad = {f.name: f for f in doctor.checks() if not f.ok}
    assert {"PyTorch", "Triton", "tokenizers", "JupyterLab", "trained weights"} <= set(bad)
    assert all(finding.mend for name, finding in bad.items() if name != "the kernels")
    assert not doctor.healthy(list(bad.values()))


def test_no_triton_on_a_mac_is_no_illness(without, monkeypatch):
    without("triton")
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    monkeypatch.setattr(doctor.platform, "system", lambda: "Darwin")
    finding = doctor.triton()
    assert "not for Darwin" in finding.what
    assert doctor.healthy([finding, doctor.kernels()])


def test_full_disk(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(9, 9, 2e8))
    finding = doctor.disk()
    assert not finding.ok
    assert finding.what.startswith("0.2 GB free")


def test_a_python_without_pydoc_topics(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    finding = doctor._safely(doctor.corpus)
    assert not finding.ok and not finding.needed  # the docstrings alone are text enough
    assert "pydoc's topics are missing" in finding.what


def test_without_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    assert not doctor.weights().ok
    (tmp_path / "weights" / "small").mkdir(parents=True)
    (tmp_path / "weights" / "small" / "model.safetensors").write_bytes(bytes(2**20))
    assert doctor.weights().what == "small (1.0 MiB)"
