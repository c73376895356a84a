"""``labkit setup images``: the recipes built one after the other, with progress; nothing to do when they are there.

See: `labkit.image.recipes.recipe`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from labkit import units
from labkit.errors import ImageError, LabkitError
from labkit.image.build.builder import BuildResult, build
from labkit.image.build.progress import Event
from labkit.image.descriptor import short_id
from labkit.image.lock import hold_new_folder
from labkit.image.recipes.recipe import KEY_LABEL, RECIPES, Recipe, key_of, prepare
from labkit.image.rootfs import remove_tree
from labkit.image.store import Image, ImageStore, default_store
from labkit.setup.progress import Progress, Step
from labkit.setup.steps import checkout_folder

__all__ = ["build_one", "build_recipe", "find", "recipes_folder", "set_up"]


def recipes_folder() -> Path:
    """Return the folder of the recipes. Raises: FeatureMissing when this labkit lies in no checkout."""
    return checkout_folder() / "images" / "oci"


def set_up(progress: Progress, *, again: bool = False, store: ImageStore | None = None) -> list[str]:
    """Build what is missing or out of date (everything if ``again``); return a sentence for each image that could not be built."""
    store = store or default_store()
    sources = recipes_folder()
    progress.total = len(RECIPES)
    lacking: list[str] = []
    for recipe in RECIPES:
        with progress.step(f"image {recipe.name}") as step:
            try:
                _make(recipe, store, sources, step, again=again)
            except (LabkitError, OSError) as error:
                step.result = "not to be had"
                lacking.append(f"{recipe.name}: {error}")
    return lacking


def _make(recipe: Recipe, store: ImageStore, sources: Path, step: Step, *, again: bool) -> None:
    base = find(store, f"{recipe.base}:latest") if recipe.base else None
    key = key_of(recipe, sources, base.id if base is not None else "")
    there = find(store, recipe.references[0])
    if there is not None and there.config.config.labels.get(KEY_LABEL) == key and not again:
        step.result = "already there"
        return
    built = build_recipe(recipe, store, sources, key=key, show=step.show)
    size_bytes = sum(result.layer_bytes or 0 for result in built.steps)
    step.result = f"{short_id(built.image_id)}, {units.format_bytes(size_bytes)} on top of {recipe.base or 'nothing'}"


def build_recipe(
    recipe: Recipe, store: ImageStore, sources: Path, *, key: str, show: Callable[[str], None] = lambda text: None
) -> BuildResult:
    """Build one recipe in a temporary context. Raises: FeatureMissing, BuildError."""

    def progress(event: Event) -> None:
        if event.kind in ("step", "output"):
            show(event.text)

    # In the store's own scratch folder: if this program is killed, the next collection finds it without an owner.
    scratch, fd = hold_new_folder(store.blobs.tmp)
    with fd:
        try:
            show("putting files together")
            prepare(recipe, sources, scratch)
            return build(scratch, store=store, tags=recipe.references, labels={KEY_LABEL: key}, progress=progress)
        finally:
            remove_tree(scratch)


def build_one(name: str, store: ImageStore) -> BuildResult:
    """Build the recipe ``name`` into ``store``, its bases first if they are not there. Raises: FeatureMissing, BuildError."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == name)
    if recipe.base and find(store, f"{recipe.base}:latest") is None:
        build_one(recipe.base, store)
    base = find(store, f"{recipe.base}:latest") if recipe.base else None
    sources = recipes_folder()
    key = key_of(recipe, sources, base.id if base is not None else "")
    return build_recipe(recipe, store, sources, key=key)


def find(store: ImageStore, name: str) -> Image | None:
    """Return an image of the store; None if it is not there."""
    try:
        return store.image(name)
    except ImageError:
        return None
