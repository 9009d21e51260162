"""Two steps of nbgrader that this course does its own way; a course folder's settings name them.

RELEASE    as nbgrader's, but a gap says what has to be returned, as in notebooks/exercises
GRADE      as nbgrader's, but each answer is judged by `grading`, with the student's own numbers
"""

from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.preprocessors import ClearSolutions, Execute, NbGraderPreprocessor

from transnormer_edu.exercises import seed_of
from transnormer_edu.exercises.grading import Judging
from transnormer_edu.exercises.notebooks import without_answers


class ClearAnswers(NbGraderPreprocessor):
    """Cuts the answers out."""

    def preprocess(self, nb, resources):
        return without_answers(nb), resources


class JudgeAnswers(Judging, Execute):
    """Runs a student's notebook and judges it."""

    def preprocess(self, nb, resources, *others):
        self.seed = seed_of(resources["nbgrader"]["student"])
        try:
            return super().preprocess(nb, resources, *others)
        finally:
            self.finish()


def _instead(steps, theirs, ours) -> list:
    return [ours if step is theirs else step for step in steps]


RELEASE = _instead(GenerateAssignment.preprocessors.default(), ClearSolutions, ClearAnswers)
GRADE = _instead(Autograde.autograde_preprocessors.default(), Execute, JudgeAnswers)
