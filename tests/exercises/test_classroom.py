"""`transnormer-edu classroom`, and nbgrader itself on what it makes: a class of four."""

import csv

import nbformat
import pytest
from typer.testing import CliRunner

from tests.exercises.nbgrader_course import ROOT, Course
from transnormer_edu.cli import app
from transnormer_edu.exercises import seed_of
from transnormer_edu.exercises.catalog import cards, find, lessons
from transnormer_edu.exercises.draw import Draw
from transnormer_edu.exercises.notebooks import sources

CHECKS = {"check-4-1": 1, "check-4-2": 2, "check-4-3": 2, "check-4-4": 3, "check-4-5": 5}
WORDS = "words-4-6"
LIES = 'def check(*anything):\n    print("4.1 is right")\n\ndef rate_of_half_life(tokens): return 1'


def copied() -> str:
    """Everybody's numbers, as if copied from a friend who is nobody."""
    exercise = find("4.3")
    known = {
        tuple(case.inputs.values()): exercise.reference(*case.inputs.values()).tolist()
        for case in exercise.cases(Draw(0))
    }
    return (
        f"def rates_of_layer(*sizes):\n    return torch.tensor({known}[sizes], dtype=torch.float64)"
    )


BROKEN = {
    "answer-4-1": LIES,
    "answer-4-2": "while True:\n    try:\n        1\n    except:\n        pass",
    "answer-4-3": copied(),
    "answer-4-4": "import os\nos._exit(1)",
}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Lesson 04 handed out, handed in by four students, graded, and given back."""
    course = Course(tmp_path_factory.mktemp("classroom") / "course")
    course.nbgrader("generate_assignment", "lesson_04")
    even = ("answer-4-2", "answer-4-4", WORDS)
    course.hand_in("nobody", "04", lambda name, answer: "")
    course.hand_in("all", "04", lambda name, answer: answer)
    course.hand_in("half", "04", lambda name, answer: answer if name in even else "")
    course.hand_in("broken", "04", lambda name, answer: BROKEN.get(name, answer))
    course.nbgrader("autograde", "lesson_04")
    course.nbgrader("generate_feedback", "lesson_04")
    return course


def test_what_is_handed_out_is_the_students_notebook(course):
    """The same text but for links to lessons, which lie elsewhere; nothing of an answer."""
    committed = nbformat.read(ROOT / "notebooks/exercises/04_exercises.ipynb", as_version=4)
    released = course.released("04")
    assert [c.source for c in released.cells][1:] == [c.source for c in committed.cells][1:]
    assert "Lesson 04." in released.cells[0].source and "](" not in released.cells[0].source
    assert not any(cell.get("outputs") for cell in released.cells)


def test_an_untouched_copy_gets_nothing(course):
    assert course.grades("nobody", "04") == dict.fromkeys([*CHECKS, WORDS], 0)


def test_all_answers_get_all_points_and_words_wait_for_the_teacher(course):
    assert course.grades("all", "04") == CHECKS | {WORDS: None}


def test_every_second_answer_gets_its_share(course):
    share = CHECKS | {"check-4-1": 0, "check-4-3": 0, "check-4-5": 0, WORDS: None}
    assert course.grades("half", "04") == share


def test_a_lie_a_hanging_and_a_crashing_cell_and_copied_numbers_lose_their_own_points(course):
    assert seed_of("broken") != 0
    lost = dict.fromkeys(("check-4-1", "check-4-2", "check-4-3", "check-4-4"), 0)
    assert course.grades("broken", "04") == CHECKS | lost | {WORDS: None}


def test_feedback_says_what_is_wrong(course):
    page = (course.folder / "feedback/broken/lesson_04/04_exercises.html").read_text()
    assert "rate is a int, expected a tensor" in page
    assert "this cell did not end within 10 s" in page
    assert "this cell ended the whole Python process" in page
    assert "KeyError" in page
    assert "4.5 is right: Decay in chunks" in page


def test_the_teacher_reads_the_words_and_grades_are_exported(course):
    with course.gradebook() as book:
        grade = book.find_grade(WORDS, "04_exercises", "lesson_04", "all")
        grade.manual_score, grade.needs_manual_grade = 2.5, False
        book.db.commit()
    course.nbgrader("export", "--to", "grades.csv")
    with open(course.folder / "grades.csv", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    scores = {name: float(row["score"]) for name, row in rows.items()}
    assert scores == {"nobody": 0, "all": 15.5, "half": 5, "broken": 5}
    assert {float(row["max_score"]) for row in rows.values()} == {16}


def test_every_lesson_is_an_assignment_with_the_points_of_its_cards(course):
    for source in sources(ROOT):
        lesson = source.name[:2]
        path = course.folder / "source" / f"lesson_{lesson}" / source.name
        roles = [c.metadata.get("nbgrader", {}) for c in nbformat.read(path, as_version=4).cells]
        points = {role.grade_id: role.points for role in roles if role.get("grade")}
        ends = {name.split("-", 1)[1].replace("-", "."): worth for name, worth in points.items()}
        assert ends == {number: card.worth for number, card in cards(lesson).items()}
        answers = [role.grade_id for role in roles if role.get("solution")]
        assert len(answers) == len(points)
        assert roles[1].grade_id == "imports" and roles[1].locked
    assert len(list((course.folder / "source").iterdir())) == len(lessons())


def test_made_again_it_keeps_the_settings_and_brings_the_rest_up_to_date(course):
    settings = course.folder / "nbgrader_config.py"
    changed = settings.read_text() + "# mine\n"
    settings.write_text(changed)
    source = course.folder / "source/lesson_01/01_exercises.ipynb"
    whole = source.read_text()
    source.write_text("old")
    said = CliRunner().invoke(app, ["classroom", str(course.folder)]).output
    assert "01_exercises.ipynb: written" in said and "02_exercises.ipynb: unchanged" in said
    assert settings.read_text() == changed and source.read_text() == whole


@pytest.mark.bad_input
def test_a_folder_that_is_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    result = CliRunner().invoke(app, ["classroom", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds other files and no nbgrader_config.py: name a new folder" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.bad_input
def test_without_nbgrader(tmp_path, monkeypatch):
    monkeypatch.setattr("transnormer_edu.course.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["classroom", str(tmp_path / "new")])
    assert "nbgrader not installed here: `pip install 'transnormer-edu[teach]'`" in result.output
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_lessons_are_graded(tmp_path):
    """All answers get all points, every second one its own, an untouched copy nothing."""
    course = Course(tmp_path / "course")
    for lesson in lessons():
        name = f"lesson_{lesson}"
        course.nbgrader("generate_assignment", name)
        course.hand_in("nobody", lesson, lambda name, answer: "")
        course.hand_in("all", lesson, lambda name, answer: answer)
        odd = lambda name, answer: answer if int(name[-1]) % 2 else ""  # noqa: E731
        course.hand_in("half", lesson, odd)
        course.nbgrader("autograde", name)
        worth = {
            f"{'check' if hasattr(card, 'function') else 'words'}-{number.replace('.', '-')}": card
            for number, card in cards(lesson).items()
        }
        full = {n: card.worth if n.startswith("check") else None for n, card in worth.items()}
        assert course.grades("nobody", lesson) == dict.fromkeys(full, 0)
        assert course.grades("all", lesson) == full
        assert course.grades("half", lesson) == {
            n: points if int(n[-1]) % 2 else 0 for n, points in full.items()
        }
