"""Old import paths: they work for one version, with a warning that says the new one. To go with 0.2.

A module that moved is found under its old name by a finder; so `make = "old.module:name"` in a task's row works, too.
Where a folder has the name of an old module (`advgym.envs.text.data`), it answers for that module's names.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

ROOMS = {  # (folder before, folder now): modules that kept their names
    ("", "core"): (
        "asking batch cached clean edits env episodes field goals keyed lanes moves offers oracle reading rng "
        "spaces task threat victim columns"
    ),
    ("", "judge"): "aims blind checkpoint compare contract flags results run",
    ("", "clients"): "check sb3 single views",
    ("", "lib"): "content drawn foreign given weights settings",
    ("", "envs.text.candidates"): "glyphs",
    ("envs.text", "envs.text.data"): "captions grammar news readers samples labels",
    ("envs.text", "envs.text.models"): "translators hub_heads hub_parts",
    ("envs.text", "envs.text.victims"): "own hub hub_seq2seq textattack_model",
    ("envs.text", "envs.text.inputs"): "pieces spacing dressing vocabulary",
    ("envs.text", "envs.text.candidates"): "paraphrases rewording",
    ("envs.text", "envs.text.perturb"): "space words every_word",
    ("envs.text", "envs.text.tasks"): "given sequences",
    ("envs.text", "envs.text.measures"): "bodega",
    ("envs.graph", "envs.graph.data"): "files interchange synthetic own pyg",
    ("envs.graph", "envs.graph.inputs"): "graphs adjacency edges features rows raw ego global_rows pairs",
    ("envs.graph", "envs.graph.models"): "propagation training local rank",
    ("envs.graph", "envs.graph.victims"): "inductive stacked modules refit",
    ("envs.graph", "envs.graph.perturb"): "batches dense global_batch view",
    ("envs.graph", "envs.graph.constraints"): "limits stealth powerlaw cooccurrence components injected",
    ("envs.graph", "envs.graph.tasks"): "poison injection rewire continuous",
    ("envs.graph", "envs.graph.show"): "figures layout",
    ("envs.image", "envs.image.data"): "jitter own",
    ("envs.image", "envs.image.perturb"): "pixels",
    ("envs.speech", "envs.speech.data"): "own synth",
    ("agents", "agents.gradient"): "pgd bim fgsm hotflip first_order prbcd grbcd transfer",
    ("agents", "agents.search"): (
        "additive beam coverage eva exhaustive genetic greedy greedy_search random_search square"
    ),
    ("agents", "agents.decision"): "decision_search hard_label",
    ("agents", "agents.words"): (
        "a2t alzantot bae bert_attack clare deepwordbug input_reduction pso pwws textbugger textfooler wir"
    ),
    ("agents", "agents.sequences"): "seq2sick joint_greedy joint_paraphrase",
    ("agents", "agents.graph"): "degree dice fga fgsm_injection l1d_rnd metattack nettack sga tdgia",
    ("agents", "agents.learned"): "policy rl_s2v",
    ("agents", "agents.bridges"): "pyg textattack",
    ("agents", "agents.control"): "noise",
    ("agents.defenses", "agents.defenses.inputs"): "bit_depth mu_law merge_synonyms",
    ("agents.defenses", "agents.defenses.graph"): "jaccard",
    ("agents.defenses", "agents.defenses.training"): "adversarial_training",
    ("agents.defenses", "agents.defenses.randomised"): "smoothing",
    ("leaderboards", "leaderboards.rules"): (
        "board board_check board_values commitments hidden opening phases reasons"
    ),
    ("leaderboards", "leaderboards.runs"): (
        "baseline contestant engine_ray engines evaluate facts fresh rivals runtime second_answer shards stage trial "
        "worker"
    ),
    ("leaderboards", "leaderboards.scoring"): "headline intervals ranking outcome scorer measured matrix",
    ("leaderboards", "leaderboards.entries"): "card client code_tokens dispute entry kin stale",
    ("leaderboards", "leaderboards.service"): "serve",
}
RENAMED = {  # module before: module now
    "book": "core.meters",
    "settle": "core.meters",
    "needs": "lib.rooms",
    "costs": "core.tally",
    "verifier": "judge.verdict",
    "report": "report.page",
    "report_examples": "report.examples",
    "report_matrix": "report.matrix",
    "report_svg": "report.svg",
    "cli": "cli.app",
    "cli_attack": "cli.attack",
    "cli_bench": "cli.bench",
    "cli_board": "cli.board",
    "cli_compare": "cli.compare",
    "cli_demo": "cli.demo",
    "cli_list": "cli.listing",
    "cli_matrix": "cli.matrix",
    "cli_new": "cli.new",
    "cli_print": "cli.printing",
    "cli_record": "cli.record",
    "cli_rescore": "cli.rescore",
    "cli_score": "cli.score",
    "cli_score_show": "cli.score_show",
    "cli_serve": "cli.serve",
    "cli_submit": "cli.submit",
    "cli_train": "cli.train",
    "cli_values": "cli.values",
    "envs.text.data": "envs.text.data.corpora",
    "envs.text.wordnet": "envs.text.data.wordnet_files",
    "envs.text.models": "envs.text.models.classifiers",
    "envs.text.seq2seq": "envs.text.models.writers",
    "envs.text.victims": "envs.text.victims.recipes",
    "envs.text.sklearn_victims": "envs.text.victims.pipelines",
    "envs.text.inputs": "envs.text.inputs.slots",
    "envs.text.synonyms": "envs.text.candidates.lexicons",
    "envs.text.candidates.keep": "envs.text.candidates.kept",
    "envs.text.candidates.own": "envs.text.candidates.callables",
    "envs.text.candidates.wordnet": "envs.text.candidates.inflected",
    "envs.text.insertion": "envs.text.perturb.word_edits",
    "envs.text.joint": "envs.text.perturb.wordings",
    "envs.text.insertions": "envs.text.tasks.inserting",
    "envs.text.joint_tasks": "envs.text.tasks.paraphrasing",
    "envs.text.task": "envs.text.tasks.embedded",
    "envs.text.swaps": "envs.text.tasks.swapping",
    "envs.text.translation": "envs.text.tasks.translating",
    "envs.text.reduction": "envs.text.tasks.reducing",
    "envs.text.trigger": "envs.text.tasks.triggers",
    "envs.text.goals": "core.kinds.sequences",
    "envs.text.goals.sequences": "core.kinds.sequences",
    "envs.text.bleu": "lib.bleu",
    "envs.text.measures.bleu": "lib.bleu",
    "envs.text.keep": "envs.text.goals.unchanged",
    "envs.text.metrics": "envs.text.measures.columns",
    "envs.text.measures": "envs.text.measures.named_models",
    "envs.text.validity": "envs.text.measures.validity",
    "envs.text.validity.changes": "envs.text.measures.validity.changes",
    "envs.text.validity.features": "envs.text.measures.validity.features",
    "envs.text.validity.relations": "envs.text.measures.validity.relations",
    "envs.text.validity.scoring": "envs.text.measures.validity.scoring",
    "envs.graph.data": "envs.graph.data.datasets",
    "envs.graph.zoo.adversarial": "envs.graph.models.adversarial",
    "envs.graph.zoo.attention": "envs.graph.models.attention",
    "envs.graph.zoo.convolutions": "envs.graph.models.convolutions",
    "envs.graph.zoo.fitting": "envs.graph.models.fitting",
    "envs.graph.zoo.gnnguard": "envs.graph.models.gnnguard",
    "envs.graph.zoo.low_rank": "envs.graph.models.low_rank",
    "envs.graph.zoo.pagerank": "envs.graph.models.pagerank",
    "envs.graph.zoo.pro_gnn": "envs.graph.models.pro_gnn",
    "envs.graph.zoo.pruning": "envs.graph.models.pruning",
    "envs.graph.zoo.rgcn": "envs.graph.models.rgcn",
    "envs.graph.zoo.rung": "envs.graph.models.rung",
    "envs.graph.zoo.smoothing": "envs.graph.models.smoothing",
    "envs.graph.zoo.soft_median": "envs.graph.models.soft_median",
    "envs.graph.zoo": "envs.graph.victims.zoo",
    "envs.graph.victims": "envs.graph.victims.recipes",
    "envs.graph.task": "envs.graph.tasks.nodes",
    "envs.graph.global_task": "envs.graph.tasks.many_nodes",
    "envs.graph.show": "envs.graph.show.neighbourhood",
    "envs.graph.show_global": "envs.graph.show.many_nodes",
    "envs.image.data": "envs.image.data.sets",
    "envs.image.victims": "envs.image.victims.recipes",
    "envs.image.task": "envs.image.tasks.balls",
    "envs.image.show": "envs.image.show.pictures",
    "envs.speech.task": "envs.speech.tasks.source",
    "envs.speech.goals": "envs.speech.goals.transcripts",
    "envs.speech.metrics": "envs.speech.measures.errors",
    "envs.speech.show": "envs.speech.show.recording",
    "envs.speech.data": "envs.speech.data.digits",
    "envs.speech.models": "envs.speech.models.nets",
    "envs.speech.victims": "envs.speech.victims.recipes",
    "agents._additive": "agents.shared.beliefs",
    "agents._common": "agents.shared.common",
    "agents._coverage": "agents.shared.margins",
    "agents._effects": "agents.shared.effects",
    "agents._eva_memory": "agents.shared.eva_memory",
    "agents._graph": "agents.shared.targets",
    "agents._injection": "agents.shared.injecting",
    "agents._keywords": "agents.shared.keywords",
    "agents._lockstep": "agents.shared.libraries.lockstep",
    "agents._messages": "agents.shared.messages",
    "agents._meta": "agents.shared.meta_gradients",
    "agents._once": "agents.shared.once",
    "agents._pairs_population": "agents.shared.pairs_population",
    "agents._policy": "agents.shared.policy_net",
    "agents._relaxed": "agents.shared.relaxed",
    "agents._s2v": "agents.shared.s2v_net",
    "agents._sentences": "agents.shared.libraries.sentences",
    "agents._slots": "agents.shared.slots",
    "agents._textattack": "agents.shared.libraries.textattack_parts",
    "agents._wir": "agents.shared.importance",
    "agents.defenses._wrap": "agents.defenses.wrapping",
    "agents.defenses.normalise": "agents.defenses.inputs.text_normalise",
    "leaderboards.scoring": "leaderboards.scoring.task_scores",
    "leaderboards.audit": "leaderboards.entries.recheck",
    "leaderboards.recheck": "leaderboards.entries.own_rows",
}
NAMES = {  # names that left their module for another: (module before, names, module now)
    ("costs", "judge.costs"): "inside at_most",
    ("run", "judge.play"): "play clean_pass clean_ids control_rate chunks",
    ("columns", "judge.columns"): "Column summarise barred check",
    ("results", "lib.rates"): "wilson mean median",
    ("envs.text.victims", "lib.fit"): "accuracy log",
    ("results", "lib.files"): "write_atomic",
    ("results", "lib.machine"): "PACKAGES versions device_name interactive",
    ("leaderboards.board", "leaderboards.rules.board_tables"): (
        "PHASES TRACKS WIDEN Limits Quota Shards BoardTask Phase Defended Board"
    ),
    ("leaderboards.phases", "leaderboards.rules.phase_cards"): (
        "FORMAT HiddenVictim PhaseCard card_path secret_path weights_folder phase_card phase_secret refusal"
    ),
    ("leaderboards.phases", "leaderboards.rules.board"): "task_options",
    ("leaderboards.serve", "leaderboards.service.plan"): "Plan boards_of",
    ("envs.text.own", "envs.text.inputs.spacing"): "PAIR",
    ("envs.text.own", "envs.text.inputs.text_pairs"): "join_pair text_words split_pair unpaired",
    ("envs.text.samples", "envs.text.data.rows"): "log Text Sample Rows check_string say_empty",
    ("envs.graph.local", "envs.graph.models.two_hop"): "Weights Tables tables distinct Pass",
    ("envs.graph.data", "envs.graph.data.labelled"): "NodeData WholeData halves",
    ("envs.graph.inductive", "envs.graph.data.cora_ml"): "CORA_ML_SHA256 PER_CLASS SHARE load split",
    ("envs.text.task", "envs.text.tasks.given"): "SPLITS",
    ("envs.text.task", "envs.text.tasks.options"): "word_limit",
    ("envs.image.task", "envs.image.tasks.common"): "OTHERWISE Source",
    ("envs.image.victims", "envs.image.models.small"): "Cnn Mlp",
    ("envs.speech.task", "envs.speech.tasks.words"): "keyword",
    ("envs.speech.task", "envs.speech.tasks.transcripts"): "transcribe",
    ("envs.speech.task", "envs.speech.perturb.clips"): "BINS ClipBatch",
    ("envs.speech.task", "envs.speech.constraints.budgets"): "check_clips check_constraint",
    ("envs.speech.goals", "envs.speech.goals.decode"): "compact ctc_loss greedy needed",
    ("envs.speech.metrics", "envs.speech.measures.levels"): "peak_db snr_db",
    ("envs.speech.show", "lib.media"): "wav",
    ("envs.speech.show", "envs.speech.show.spectra"): "RAMP RANGE picture power_db",
    ("envs.speech.data", "envs.speech.data.clips"): "Clips pack",
    ("envs.speech.data", "envs.speech.data.own"): "own_clips rounds",
    ("results", "judge.figures"): (
        "MARKS success_curve success_at success_area members_rate members_turned accuracies"
    ),
}  # fmt: skip

MODULES = {
    **{f"advgym.{a}.{n}".replace("..", "."): f"advgym.{b}.{n}" for (a, b), ns in ROOMS.items() for n in ns.split()},
    **{f"advgym.{a}": f"advgym.{b}" for a, b in RENAMED.items()},
}
ELSEWHERE = {(f"advgym.{a}", n): f"advgym.{b}" for (a, b), ns in NAMES.items() for n in ns.split()}
FOLDERS = frozenset(new.rpartition(".")[0] for new in MODULES.values()) & frozenset(MODULES)
HOLDERS = frozenset(old.rpartition(".")[0] for old in MODULES) & frozenset(MODULES)


class _Old(ModuleType):
    """What an old path gives: the names of the module that took its place."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        where = ELSEWHERE.get((self.__name__, name), MODULES[self.__name__])
        return getattr(importlib.import_module(where), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(MODULES[self.__name__]))


class _Finder(importlib.machinery.PathFinder):
    """Finds moved modules, first of all finders; it knows nothing else."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MODULES:
            return None
        if fullname in FOLDERS:
            spec = super().find_spec(fullname, path, target)
            if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
                spec.loader = _Folder(spec.loader.name, spec.loader.path)
            return spec
        now = importlib.util.find_spec(MODULES[fullname])
        spec = importlib.machinery.ModuleSpec(fullname, _Loader(), origin=None if now is None else now.origin)
        if fullname in HOLDERS:
            spec.submodule_search_locations = []
        return spec


class _Loader(importlib.machinery.SourcelessFileLoader):
    def __init__(self) -> None:
        """It reads no file."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Old(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        _warn(module.__name__, MODULES[module.__name__])


class _Folder(importlib.machinery.SourceFileLoader):
    """A folder that has the name of an old module, and its names."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        old = _Old(module.__name__)

        def find(name: str) -> Any:
            try:
                if importlib.util.find_spec(f"{module.__name__}.{name}") is not None:
                    raise AttributeError  # a file of the folder has that name now, and is about to be imported
                value = getattr(old, name)
            except AttributeError:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}") from None
            _warn(f"{module.__name__}.{name}", f"{MODULES[module.__name__]}.{name}")
            return value

        module.__dict__.setdefault("__getattr__", find)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; the old path goes with 0.2", DeprecationWarning, stacklevel=3)


def install() -> None:
    """Put the finder before the others."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
