"""Section `loss`: the terms, their weights, and the masking that MFD needs."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from harness.config.section import Section, problem


def known_term(term: str) -> str:
    """Refuse a term that no loss has, naming the known ones."""
    import kdlosses  # here, since it imports torch and `clipkd --help` must not

    return _known("loss term", term, kdlosses.available_terms())


def known_backend(backend: str) -> str:
    """Refuse a backend that does not exist; whether it can run is a question for the machine that trains."""
    import kdlosses

    return _known("backend", backend, ["auto", *kdlosses.backends.available()])


def _known(what: str, name: str, names: list[str]) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise problem(f"names no {what}, got {name!r}; {hint}known: {', '.join(names)}")


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
    backend: Backend = Field("auto", description="Which kdlosses backend computes it; auto = the best one available.")
    backend_options: dict[str, int | str] = Field(
        default_factory=dict,
        description="What that backend takes, as {chunk_size: 512} for chunked; not with auto.",
    )
    weights: dict[Term, Weight] = Field(
        default_factory=lambda: {"contrastive": 1.0},
        description="Weight of each term; 0 switches a term off, `default` = what kdlosses starts from in this "
        "variant. Every term but contrastive and siglip needs a teacher; siglip and sigmoid_kd need a bias.",
    )
    options: dict[Term, dict[str, float | None]] = Field(
        default_factory=dict,
        description="Options of terms, as {affinity: {teacher_scale: 100}}: keywords of their classes in kdlosses.",
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
        """The active terms that read ``need``, a word of ``kdlosses.views.NEEDS``."""
        from kdlosses.registry import terms_reading

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
        from kdlosses.weights import default_weights

        known = default_weights(variant)
        filled = {term: known.get(term, w) if w == DEFAULT else w for term, w in weights.items()}
        return {**values, "weights": filled}

    @model_validator(mode="after")
    def _options_are_the_backends(self) -> "LossConfig":
        from kdlosses.backends import options

        at = ("loss", "backend_options")
        if self.backend_options and self.backend == "auto":
            raise problem("belong to one backend: name it in loss.backend, which is auto", at=at)
        for option in self.backend_options:
            if option not in options(self.backend):
                known = ", ".join(options(self.backend)) or "none"
                raise problem(f"has no option {option!r} for backend {self.backend}; known: {known}", at=at)
        return self

    @model_validator(mode="after")
    def _weights_make_sense(self) -> "LossConfig":
        from kdlosses.weights import check_weights

        try:
            check_weights(self.weights, self.variant)
        except ValueError as error:
            # The schema has checked each term and weight: what is left is that none is active, or the weight of gd.
            at = ("loss", "weights", "gd") if "gd" in self.active else ("loss", "weights")
            raise problem(f"cannot be used: {error}", at=at) from error
        return self

    @model_validator(mode="after")
    def _options_are_the_terms(self) -> "LossConfig":
        from kdlosses.options import check_options

        try:
            check_options(self.options, self.weights)
        except ValueError as error:
            raise problem(f"cannot be used: {error}", at=("loss", "options")) from error
        return self
