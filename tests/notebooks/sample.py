"""A small lesson with one of each: prediction, check, figure, source, quiz, exercise, live view."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SAMPLE", "write_sample"]

SAMPLE = '''# %% [markdown]
"""
# A sample lesson

Next: [the same](98_sample.ipynb), or [the end](#The-end).
"""

# %%
import math
import os
import time

from labkit import charts, lesson
from labkit.units import format_bytes
from labkit.widgets import LiveView, layout

lesson.begin("98_sample")

# %%
guess = lesson.predict(
    "Which PID has this process?", options=["0", "some other number"], answer="some other number")
guess

# %%
guess.compare()

# %%
lesson.check("a process has a PID", os.getpid() > 0, got=os.getpid())

# %%
figure, (axes,) = charts.figure()
charts.bars(axes, [charts.Bar("process", 1, "process"), charts.Bar("container", 2, "container")],
            title="A container starts like a process", x="start-up time (ms)")
charts.show(figure, alt="Bar chart: the container takes twice as long as the process.")

# %%
lesson.source(format_bytes, without_docstring=True)

# %%
question = lesson.quiz("What is a PID?", [
    lesson.Answer("a name", "Names stand in comm."),
    lesson.Answer("a number", "The kernel's number of a process.", right=True)])
question

# %%
task = lesson.exercise("Set the variable MOON to 1", steps=[
    lesson.Step("MOON is 1", look=lambda made: made.get("MOON"), want="1", hints=["Return a dictionary."])])
task


# %% tags=["exercise"]
def my_environment():
    """Return an environment with MOON=1."""


# %% tags=["judge"]
task.judge(my_environment)


# %% tags=["solution"]
def solution():
    return {"MOON": "1"}


task.prove(solution)


# %%
class Wave:
    def setup(self, figure):
        axes = figure.add_subplot()
        charts.label_axes(axes, title="A wave moves to the left", x="time (s)", y="height (cm)")
        axes.set_ylim(-1, 1)
        self.x = [place / 10 for place in range(100)]
        self.line = charts.line(axes, self.x, [0] * 100, concept="process")
        return [self.line]

    def update(self, now):
        self.line.set_ydata([math.sin(x + now) for x in self.x])


# %% tags=["nbval-ignore-output"]
height = layout.slider("height", unit="cm", low=1, high=10, value=3)
view = LiveView(time.monotonic, Wave(), title="a wave", alt="Line: a wave that moves to the left",
                describe=lambda now: f"The clock says {now:.1f} s.", controls=[height])
view

# %%
lesson.check("the view has drawn its first frame", view.frames_drawn >= 1, got=view.frames_drawn)

# %% tags=["nbval-ignore-output"]
view.start()
time.sleep(0.5)
print(f"{view.frames_drawn} frames")

# %% [markdown]
"""
## The end
"""

# %%
view.stop()
'''


def write_sample(folder: Path, *, name: str = "98_sample") -> Path:
    """Write the lesson's source into ``folder`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(SAMPLE)
    return path
