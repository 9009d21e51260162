"""The corpus of installed packages: whole packages on one side, no paragraph twice."""

import sys

import pytest

from transnormer_edu import installed_text
from transnormer_edu.data import is_held_out
from transnormer_edu.installed_text import installed_corpus

LICENCE = "Permission is granted to whoever reads this, to do with it whatever pleases them."


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of packages in the place of all that is installed; nothing else is read."""
    root = tmp_path / "site-packages"
    names = [f"package{i}" for i in range(60)]
    for name in names:
        (root / name / "tests").mkdir(parents=True)
        own = f"def {name}():\n    return 'a long enough sentence that only {name} contains'"
        (root / name / "code.py").write_text(f"# {LICENCE}\n\n{own}\n\nreturn\n\nreturn\n")
        (root / name / "tests" / "test_code.py").write_text("assert 'never read'")
        (root / name / "data.csv").write_text("1,2,3")
        (root / f"{name}-1.0.dist-info").mkdir()
        (root / f"{name}-1.0.dist-info" / "README.md").write_text("never read")
    (root / "single.py").write_text("x" * 100)
    (root / "package0" / "table.py").write_text("0, " * installed_text.LARGEST_FILE)
    (root / "package1" / "latin.py").write_bytes(b"\xff\xfe\xfa")
    monkeypatch.setattr(sys, "path", [str(root), *sys.path[:1]])
    monkeypatch.setattr(installed_text, "standard_library_files", list)
    return names


def test_a_package_is_on_the_side_that_its_name_says(packages):
    corpus = installed_corpus(2000, 200)
    for documents, side in ((corpus.train, False), (corpus.held_out, True)):
        assert documents
        assert all(is_held_out(document.name.split("/")[0]) == side for document in documents)
    held = {document.name for document in corpus.held_out}
    assert held <= {f"{name}/{name}/code.py" for name in packages}


def test_a_paragraph_stands_once_but_short_ones_may_return(packages):
    corpus = installed_corpus(2000, 200)
    texts = [document.text for document in (*corpus.train, *corpus.held_out)]
    assert sum(LICENCE in text for text in texts) == 1
    assert sum(text.count("\n\nreturn") for text in texts) >= len(texts)
    assert not any("never read" in text or "0, 0" in text for text in texts)


def test_it_stops_when_it_has_enough_and_says_when_it_has_not(packages):
    few, many = installed_corpus(500, 100), installed_corpus(2000, 100)
    assert few.train == many.train[: len(few.train)] and len(few.train) < len(many.train)
    assert few.fingerprint == installed_corpus(500, 100).fingerprint != many.fingerprint
    with pytest.raises(ValueError, match="on the side 'held out', expected 9,000: ask for less"):
        installed_corpus(500, 9000)
    with pytest.raises(ValueError, match="train bytes is 0"):
        installed_corpus(0, 10)
