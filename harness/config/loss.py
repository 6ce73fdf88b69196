"""Section `loss`: the terms, their weights, and the masking that MFD needs."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.config.section import Section, problem
from harness.config.terms import default_weights, known_backends, known_terms, terms_reading


def known_term(term: str) -> str:
    """Refuse a term that no loss has, naming the known ones."""
    return _known("loss term", term, list(known_terms()))


def known_backend(backend: str) -> str:
    """Refuse a backend that does not exist; whether it can run is a question for the machine that trains."""
    return _known("backend", backend, ["auto", *known_backends()])


def _known(what: str, name: str, names: list[str], at: tuple[str, ...] = ()) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise problem(f"must be a known {what}, got {name!r}; {hint}known: {', '.join(names)}", at=at)


Term = Annotated[str, AfterValidator(known_term)]
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
    weights: dict[Term, Weight] = Field(
        default_factory=lambda: {"contrastive": 1.0},
        description="Weight of each term; 0 switches a term off, `default` = what kdlosses starts from in this "
        "variant. Every term but contrastive and siglip needs a teacher; siglip and sigmoid_kd need a bias.",
    )
    options: dict[Term, dict[str, float | None]] = Field(
        default_factory=dict,
        description="Options of terms, such as {affinity: {teacher_scale: 100}}: keywords of their classes.",
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
        return terms_reading(self.active, need)

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
        known = default_weights(variant)
        filled = {term: known.get(term, w) if w == DEFAULT else w for term, w in weights.items()}
        return {**values, "weights": filled}

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
            facts, weight = known_terms()[term], self.weights[term]
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
            known = known_terms()[term].options
            if values and not known:
                others = ", ".join(name for name, info in known_terms().items() if info.options)
                raise problem(f"must be empty, since this term takes no options; those that do: {others}", at=at)
            if term not in self.weights:
                raise problem("belongs to a term without a weight; add it to loss.weights or remove it", at=at)
            for option, value in values.items():
                _known("option of this term", option, list(known), at=at)
                if value is not None and value <= 0:
                    raise problem(
                        f"must be above 0, or null for the model's own scale, got {value:g}", at=(*at, option)
                    )
        return self
