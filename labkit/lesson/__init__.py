"""What a lesson is made of: predictions, checks, exercises, quizzes, and labkit's own source to read.

Read in this order: `needs` (what this machine allows), `check` (a claim that holds or raises), `recorded` (what another machine
measured), `predict` (say it before you see it), `quiz`, `exercise`, `source`, `progress` (what the student has done so far), `build`
(how a notebook is made from its source; for authors).

Leaves out: marks. Nothing here is sent anywhere.
"""

from __future__ import annotations

from labkit.lesson.check import CheckFailed, check
from labkit.lesson.exercise import Exercise, Step, exercise
from labkit.lesson.needs import Need, needs
from labkit.lesson.predict import Prediction, predict
from labkit.lesson.progress import begin, show_progress
from labkit.lesson.quiz import Answer, Quiz, quiz
from labkit.lesson.recorded import MACHINE, recorded_or
from labkit.lesson.source import source

__all__ = [
    "MACHINE",
    "Answer",
    "CheckFailed",
    "Exercise",
    "Need",
    "Prediction",
    "Quiz",
    "Step",
    "begin",
    "check",
    "exercise",
    "needs",
    "predict",
    "quiz",
    "recorded_or",
    "show_progress",
    "source",
]
