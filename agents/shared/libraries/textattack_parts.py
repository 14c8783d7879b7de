"""TextAttack's parts as advgym needs them: the table as its search space, our meter as its model."""

from __future__ import annotations

import copy
import importlib
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from advgym.agents.shared.libraries.sentences import Sentences
from advgym.errors import AdvgymError, unknown
from advgym.lib import foreign
from advgym.lib.weights import cache_dir

# Where neither NLTK nor $ADVGYM_DATA has its stop words, these let TextAttack be imported.
STOPWORDS = ("a", "an", "the", "and", "or", "but", "if", "of", "at", "by", "for", "with", "to", "from", "in", "on",
             "is", "are", "was", "were", "be", "it", "its", "this", "that", "not", "no")  # fmt: skip
SEARCHES = Path(__file__).with_name("textattack.toml")


def library() -> Any:
    """`import textattack`, offline. Version 0.3.11 needs transformers below 5 (flair holds it there)."""
    os.environ.setdefault("TA_CACHE_DIR", str(cache_dir() / "textattack"))
    return foreign.quiet_import("textattack", "stopwords", "text/nltk_data", STOPWORDS)


def searches() -> dict[str, dict[str, Any]]:
    """The search of each recipe, by TextAttack's name."""
    found: dict[str, dict[str, Any]] = tomllib.loads(SEARCHES.read_text())["search"]
    return found


def own_space(recipe: str, wrapper: Any) -> Any:
    """The whole recipe, or what a function "module:name" of a model wrapper makes, as TextAttack builds it."""
    names = importlib.import_module("textattack.attack_args").ATTACK_RECIPE_NAMES
    if ":" in recipe:
        module, _, name = recipe.partition(":")
        made = getattr(importlib.import_module(module), name)(wrapper)
    elif recipe in names:
        module, _, name = names[recipe].rpartition(".")
        try:
            made = getattr(importlib.import_module(module), name).build(wrapper)
        except Exception as error:
            raise AdvgymError(
                f"TextAttack cannot build its recipe {recipe!r} here ({type(error).__name__}: {str(error)[:200]}): it "
                "downloads what it needs. space='table' runs its search over the table of the task, offline"
            ) from error
    else:
        raise unknown("recipe of TextAttack", recipe, names, "A 'module:function' of a model wrapper works too.")
    return made


def table_space(recipe: str, wrapper: Any, sentences: Sentences, lane: int, limit: int, goal: Any) -> Any:
    """The recipe's search over the substitutes that the task's table has for one sentence."""
    textattack, found = library(), searches()
    if recipe not in found:
        raise unknown("search of TextAttack", recipe, found, "space='recipe' runs a recipe with its own candidates.")
    settings = dict(found[recipe])
    if settings.get("wir_method") == "gradient":
        raise AdvgymError(f"{recipe!r} of TextAttack reads gradients, which its model calls do not carry here")
    search = getattr(textattack.search_methods, settings.pop("class"))(**settings)
    swaps, within = _space(sentences, lane)
    from textattack.constraints.overlap import MaxWordsPerturbed
    from textattack.constraints.pre_transformation import RepeatModification

    rules = [RepeatModification(), within, MaxWordsPerturbed(max_num_words=limit)]
    return textattack.Attack(goal(wrapper), rules, swaps, search)


def clone(attack: Any, wrapper: Any) -> Any:
    """The same attack with a state of its own, for another sentence."""
    import lru

    goal, search = copy.copy(attack.goal_function), copy.copy(attack.search_method)
    goal.model = wrapper
    if goal.use_cache:
        goal._call_model_cache = lru.LRU(2**12)
    rules = [*attack.pre_transformation_constraints, *attack.constraints]
    return type(attack)(goal, rules, attack.transformation, search)


def _space(sentences: Sentences, lane: int) -> tuple[Any, Any]:
    """The transformation and the pre-constraint of one sentence's table."""
    from textattack.constraints import PreTransformationConstraint
    from textattack.transformations.word_swaps import WordSwap

    def substitutes(text: Any, index: int) -> list[str]:
        """Of the word at an index of TextAttack's, which leaves punctuation out, without what clings to the word."""
        start = text._text_index_of_word_index(index)
        position = len(text.text[:start].split()) - (start > 0 and not text.text[start - 1].isspace())
        token, word = text.text.split()[position], text.words[index]
        before, _, after = token.partition(word)
        words = sentences.swaps(lane, sentences.site(lane, position))
        fits = [w for w in words if w.startswith(before) and w.endswith(after) and len(w) > len(before + after)]
        return [w[len(before) : len(w) - len(after)] for w in fits]

    class TableSwap(WordSwap):
        """Swaps of the task's table."""

        def _get_transformations(self, current_text: Any, indices_to_modify: Any) -> list[Any]:
            return [
                current_text.replace_word_at_index(i, word)
                for i in sorted(indices_to_modify)
                for word in substitutes(current_text, i)
            ]

    class InTable(PreTransformationConstraint):
        """Words that the table has substitutes for."""

        def _get_modifiable_indices(self, current_text: Any) -> set[int]:
            return {i for i in range(len(current_text.words)) if substitutes(current_text, i)}

    return TableSwap(), InTable()


def wrapper_of(ask: Callable[[list[str]], Any], name: str) -> Any:
    """A model of TextAttack's that asks us: `name` is the observation it is told, "scores" or "objective"."""
    from textattack.models.wrappers import ModelWrapper

    class Metered(ModelWrapper):
        """The metered victim."""

        model = None

        def __call__(self, text_input_list: list[str], **kwargs: Any) -> torch.Tensor:
            told: torch.Tensor = ask([t if isinstance(t, str) else " ".join(t) for t in text_input_list])[name]
            return told

    return Metered()


def objective_goal() -> Any:
    """A goal function of TextAttack's over our objective: whatever the task wants."""
    from textattack.goal_function_results import ClassificationGoalFunctionResult
    from textattack.goal_functions import GoalFunction

    class Objective(GoalFunction):
        """Reached where the objective is above zero."""

        def _process_model_outputs(self, inputs: Any, outputs: torch.Tensor) -> torch.Tensor:
            return outputs.reshape(-1, 1)

        def _is_goal_complete(self, model_output: torch.Tensor, _: Any) -> bool:
            return float(model_output) > 0

        def _get_score(self, model_output: torch.Tensor, _: Any) -> float:
            return float(model_output)

        def _goal_function_result_type(self) -> Any:
            return ClassificationGoalFunctionResult

    return Objective
