"""Section `loss`: the terms, their weights, and the masking that MFD needs."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.config.section import Section, problem
from harness.config.term_options import what_is_wrong
from harness.config.terms import TermInfo, known_backends, known_terms


def known_backend(backend: str) -> str:
    """Refuse a backend that does not exist; whether it can run is a question for the machine that trains."""
    return _known("backend", backend, ["auto", *known_backends()])


def _known(what: str, name: str, names: list[str], at: tuple[str, ...] = ()) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise problem(f"must be a known {what}, got {name!r}; {hint}known: {', '.join(names)}", at=at)


Backend = Annotated[str, AfterValidator(known_backend)]
Weight = Annotated[float, Field(ge=0)]
VARIANTS = ("paper", "released")
# The two variants of gd need weights a thousand times apart, so that a recipe for both cannot give a number.
DEFAULT = "default"


class LossConfig(Section):
    """A weighted sum of kdlosses' terms."""

    variant: Literal["paper", "released"] = Field(
        "paper", description="paper = the formulas as published; released = as the authors' code computes them."
    )
    backend: Backend = Field(
        "auto", description="Backend of kdlosses that computes the loss; auto = the best one available."
    )
    backend_options: dict[str, int | str] = Field(
        default_factory=dict,
        description="Options of the backend, such as {chunk_size: 512} for chunked; not with auto.",
    )
    weights: dict[str, Weight] = Field(
        default_factory=lambda: {"contrastive": 1.0},
        description="Weight of each term; 0 switches a term off, `default` = what kdlosses starts from in this "
        "variant. Every term but contrastive and siglip needs a teacher; siglip and sigmoid_kd need a bias.",
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Options of terms, such as {affinity: {teacher_scale: 100}}: keywords of their classes.",
    )
    terms: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Names of your own for terms with options, such as {soft: {loss: affinity, teacher_scale: 50}}, to "
        "be given weights: so one term can be in a sum several times.",
    )
    mask_ratio: float = Field(
        0.75, ge=0, lt=1, description="Share of the patches hidden from the student, in [0, 1). Only with the mfd term."
    )
    mask_kind: Literal["tokens", "pixels"] = Field(
        "tokens",
        description="tokens = drop a ViT student's patch tokens; pixels = blank image patches, for any student. "
        "Only with the mfd term.",
    )

    @property
    def active(self) -> tuple[str, ...]:
        """The terms with a weight above zero."""
        return tuple(term for term, weight in self.weights.items() if weight > 0)

    def reading(self, need: str) -> tuple[str, ...]:
        """The active terms that read ``need``, a word of kdlosses' ``needs`` such as "teacher"."""
        return tuple(name for name in self.active if need in self.term(name).needs_of(self.told(name)))

    def term(self, name: str) -> TermInfo:
        """The facts about the term that has this name here."""
        return known_terms()[self.terms[name]["loss"] if name in self.terms else name]

    def told(self, name: str) -> dict[str, Any]:
        """What the recipe says of the options of the term that has this name."""
        own = {option: value for option, value in self.terms.get(name, {}).items() if option != "loss"}
        return {**own, **self.options.get(name, {})}

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_the_variant(cls, values: Any) -> Any:
        """Put numbers in place of `default`: what is not a mapping or names no variant is the schema's to refuse."""
        weights = values.get("weights") if isinstance(values, dict) else None
        if not isinstance(weights, dict) or DEFAULT not in list(weights.values()):
            return values
        variant = values.get("variant", "paper")
        if variant not in VARIANTS:
            return values
        filled = {name: _default_weight(name, values, variant) if w == DEFAULT else w for name, w in weights.items()}
        return {**values, "weights": filled}

    @model_validator(mode="after")
    def _terms_are_known(self) -> "LossConfig":
        for name, one in self.terms.items():
            at = ("loss", "terms", name)
            if not name.isidentifier() or name in known_terms():
                raise problem("must be a name of your own: a word that is not the name of a loss term", at=at)
            if "loss" not in one:
                raise problem("must name its term under the key loss, as in {loss: affinity}", at=at)
            _known("loss term", one["loss"], list(known_terms()), at=(*at, "loss"))
            if name not in self.weights:
                raise problem("has no weight; add it to loss.weights or remove it", at=at)
            self._check_options(at, name, {option: value for option, value in one.items() if option != "loss"})
        for section in ("weights", "options"):
            for name in getattr(self, section):
                _known("loss term", name, [*known_terms(), *self.terms], at=("loss", section, name))
        return self

    @model_validator(mode="after")
    def _options_are_the_backends(self) -> "LossConfig":
        at = ("loss", "backend_options")
        if self.backend_options and self.backend == "auto":
            raise problem("belong to one backend: name it in loss.backend, which is auto", at=at)
        for option in self.backend_options:
            if option not in known_backends()[self.backend]:
                known = ", ".join(known_backends()[self.backend]) or "none"
                raise problem(f"has no option {option!r} for backend {self.backend}; known: {known}", at=at)
        return self

    @model_validator(mode="after")
    def _weights_make_sense(self) -> "LossConfig":
        at = ("loss", "weights")
        if not self.active:
            raise problem(f"must give at least one term a weight above zero, got {self.weights}", at=at)
        for term in self.active:
            # kdlosses refuses that very number too, when it makes the loss.
            facts, weight = self.term(term), self.weights[term]
            paper, released = facts.default_weight["paper"], facts.default_weight["released"]
            if self.variant == "paper" and weight == released != paper:
                grows = f" x {facts.weight_grows_by}" if facts.weight_grows_by else ""
                raise problem(
                    f"is {weight:g}, which belongs to variant: released; the paper's {term} is on another scale: "
                    f"start from {paper:g}{grows}",
                    at=(*at, term),
                )
        return self

    @model_validator(mode="after")
    def _options_are_the_terms(self) -> "LossConfig":
        for term, values in self.options.items():
            at = ("loss", "options", term)
            if values and not self.term(term).options:
                others = ", ".join(name for name, info in known_terms().items() if info.options)
                raise problem(f"must be empty, since this term takes no options; those that do: {others}", at=at)
            if term not in self.weights:
                raise problem("belongs to a term without a weight; add it to loss.weights or remove it", at=at)
            for option in values:
                if option in self.terms.get(term, {}):
                    raise problem("stands in loss.terms too; leave one out", at=(*at, option))
            self._check_options(at, term, values)
        return self

    @model_validator(mode="after")
    def _banks_have_what_recipes_have(self) -> "LossConfig":
        for name in self.active:
            if (self.terms[name]["loss"] if name in self.terms else name) == "bank":
                self._check_bank(name, self.told(name))
        return self

    def _check_bank(self, name: str, told: dict[str, Any]) -> None:
        where = {
            option: ("loss", "terms" if option in self.terms.get(name, {}) else "options", name, option)
            for option in ("targets", "num_keys")
        }
        if told.get("targets") == "index":
            raise problem("must be teacher, as the data of recipes have no numbers of keys", at=where["targets"])
        if told.get("num_keys"):
            words = "is for loops of your own, as recipes have no keys to set; take queue_size"
            raise problem(words, at=where["num_keys"])
        if not told.get("queue_size"):
            raise problem("needs a queue_size above 0 among its options", at=("loss", "weights", name))

    def _check_options(self, at: tuple[str, ...], name: str, values: dict[str, Any]) -> None:
        known = self.term(name).options
        for option, value in values.items():
            _known("option of this term", option, list(known), at=at)
            wrong = what_is_wrong(known[option], value)
            if wrong:
                raise problem(wrong, at=(*at, option))


def _default_weight(name: str, values: dict[str, Any], variant: str) -> float:
    """What kdlosses starts from; any number for a term that is not known, which is refused after this."""
    terms = values.get("terms")
    own = terms.get(name) if isinstance(terms, dict) else None
    term = str(own.get("loss")) if isinstance(own, dict) else name
    return known_terms()[term].default_weight[variant] if term in known_terms() else 1.0
