import pytest

from transnormer_edu.measured import measured


def test_results_are_found_from_a_folder_below(tmp_path, monkeypatch):
    results = tmp_path / "kernels" / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "mine.json").write_text('{"rows": [1, 2]}')
    lessons = tmp_path / "notebooks" / "mine"
    lessons.mkdir(parents=True)
    monkeypatch.chdir(lessons)
    assert measured("mine") == {"rows": [1, 2]}


@pytest.mark.bad_input
def test_results_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as failure:
        measured("mine")
    assert str(failure.value) == (
        "kernels/benchmarks/results/mine.json is not in this folder or above it: "
        "open this lesson inside the project's repository"
    )


@pytest.mark.parametrize("name", ["h100", "h100_lightning2", "h200"])
def test_committed_results_say_where_they_are_from(name):
    found = measured(name)
    assert {"device", "date", "torch", "triton"} <= set(found["origin"])
    assert all({"name", "b", "h", "n"} <= set(row) for row in found["rows"])
