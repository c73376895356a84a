"""``labkit doctor``: what this machine allows, what it refuses, which rule refuses, and what to do about it.

::

    report = examine()            # tries everything, within two seconds, and leaves nothing
    report["overlay"].state       # "yes", "limited" or "no"
    report.lesson("03")           # what that lesson can show here
    needs("03").requires          # what it needs

``features`` what is asked and who needs it; ``helper`` and ``probes_*`` the trying; ``rules`` from an errno to the rule behind it;
``software`` programs and packages; ``report`` text, JSON, HTML; ``command`` the command line.
"""

from labkit.doctor.answers import State
from labkit.doctor.examine import examine
from labkit.doctor.features import FEATURES, LESSONS, Needs, needs
from labkit.doctor.report import Feature, LessonState, Report

__all__ = ["FEATURES", "LESSONS", "Feature", "LessonState", "Needs", "Report", "State", "examine", "needs"]
