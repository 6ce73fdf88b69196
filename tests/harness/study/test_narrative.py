"""Narrative and tables of a study on made-up numbers: order, reversed pairs, best values, similarity, sweeps."""

from __future__ import annotations

import pytest

from harness.study.best_values import best_value_variants
from harness.study.config import Study
from harness.study.load import load_study
from harness.study.narrative import narrative
from harness.study.ranking import compare_order, correlation, score_values, seed_deviation
from harness.study.readme_table import readme_table
from harness.study.result_files import provenance
from harness.study.results import StudyResults, as_json
from harness.study.results_table import markdown_table
from tests.harness.study.studies import TINY, write

ABOUT = {
    "command": "clipkd study x",
    "versions": {"torch": "2"},
    "device": "a machine",
    "date": "2026-01-02T00:00:00",
    "git_commit": "abc",
}
COSINES = {"baseline": 0.1, "fd": 0.2, "crd": 0.9, "icl": 0.8}


def study(tmp_path) -> Study:
    """Four variants; published: fd 3 > crd 2.5 > icl 2 > baseline 1."""
    icl = "  - {name: icl, label: ICL, kind: method, published: 2, set: {loss.weights: {icl: 1}}}\n"
    text = TINY.replace("published: 2,", "published: 2.5,").replace("sweeps:", f"{icl}sweeps:")
    return load_study(write(tmp_path, text)).study


def run(variant: str, seed: int, points: float, **extra) -> dict:
    metrics = {"zeroshot": {"top1": points}, "retrieval": {"i2t_r5": points}}
    similarity = {"image_cosine": COSINES[variant.split("-")[0]], "text_cosine": COSINES[variant.split("-")[0]]}
    similarity |= {"image_alignment": 0.5, "text_alignment": 0.5}
    record = {"seconds": 3600.0, "images_per_second": 1.0, "git_commit": f"c{seed}", "date": f"2026-01-0{seed + 1}"}
    key = f"{variant}-{seed}-{points}"
    return {"variant": variant, "seed": seed, "set": {}, "key": key, "metrics": metrics, "similarity": similarity,
            "parameters": {"image": 1, "text": 1, "total": 2}, **record, **extra}  # fmt: skip


def findings(tmp_path, scores: dict[str, list[float]], swept: list[float] | None = None) -> StudyResults:
    tiny = study(tmp_path)
    final = [run(name, seed, points) for name, row in scores.items() for seed, points in enumerate(row)]
    sweep = [run("fd", 0, points) for points in swept or [1, 2]]
    chosen = {variant.name: {"optim.lr": 0.001} for variant in tiny.variants}
    tuning = [run("baseline", 0, 4.5, set={"optim.lr": 0.001})]
    return StudyResults(tiny, None, chosen, {}, tuning, final, [sweep], ABOUT)


def test_reversed_pairs_are_listed_with_difference_and_seeds(tmp_path):
    results = findings(tmp_path, {"baseline": [5, 6], "fd": [10, 10], "crd": [12, 14], "icl": [9, 12]})
    text = narrative(results)
    assert "CRD > ICL > FD. Published: FD > CRD > ICL." in text
    assert "Rank correlation with the published order -0.50" in text
    assert "2 of 3 pairs of methods are reversed relative to the published order" in text
    assert "on every seed: CRD above FD (+3.0)" in text
    assert "not on every seed: ICL above FD (+0.5, 1 of 2)" in text


def test_an_order_without_reversed_pairs(tmp_path):
    results = findings(tmp_path, {"baseline": [1, 1], "fd": [10, 10], "crd": [8, 8], "icl": [6, 6]})
    assert "All 3 pairs of methods are in the published order." in narrative(results)
    order = compare_order(results, score_values(results))
    assert (order.spearman, order.kendall, order.reversed) == (1, 1, [])


def test_similarity_and_sensitivity(tmp_path):
    results = findings(tmp_path, {"baseline": [1, 1], "fd": [2, 2], "crd": [9, 9], "icl": [8, 8]}, swept=[3, 8])
    text = narrative(results)
    assert "cosine +1.00 (+1.00 among baseline and methods), highest for CRD at 0.90" in text
    assert "alignment" not in text.split("Rank correlation over variants")[1].split("Cosine compares")[0], (
        "it is constant"
    )
    assert "**FD, loss.weights.fd** (tuning sets, one seed): 10: 3.0, 100: 8.0. Best at 100; the range is 5.0" in text
    assert "the baseline has 4.5" in text


def test_a_sweep_s_best_value_becomes_a_row_unless_it_is_the_variant_s_own(tmp_path):
    results = findings(tmp_path, {})
    own, better = [run("fd", 0, 1), run("fd", 0, 2)], [run("fd", 0, 2), run("fd", 0, 1)]
    assert best_value_variants(results.study, results.chosen, [own]) == []
    ((swept_name, row),) = best_value_variants(results.study, results.chosen, [better])
    assert (swept_name, row.name, row.label, row.published) == ("fd", "fd-10", "FD, weight 10", None)
    assert list(row.set.items())[-1] == ("loss.weights.fd", 10.0)


def test_the_order_is_given_again_at_the_best_weights(tmp_path):
    results = findings(tmp_path, {"baseline": [1, 1], "fd": [2, 2], "crd": [5, 5], "icl": [4, 4]}, swept=[9, 2])
    ((_, row),) = best_value_variants(results.study, results.chosen, results.sweeps)
    extended = StudyResults(
        results.study.model_copy(update={"variants": (*results.study.variants, row)}), None,
        results.chosen | {row.name: {"optim.lr": 0.001}}, {"fd": row.name}, results.tuning,
        [*results.final, run("fd-10", 0, 7), run("fd-10", 1, 7)], results.sweeps, ABOUT,
    )  # fmt: skip
    text = narrative(extended)
    assert "best on the tuning sets** (FD, weight 10: 7.0): FD > CRD > ICL; rank correlation" in text
    assert "All 3 pairs of methods are in the published order." in text
    assert "2 of 3 pairs of methods are reversed" in text, "the first order is still given"
    assert list(as_json(extended)["variants"]) == ["fd-10", "crd", "icl", "fd", "baseline"]
    lines = readme_table(extended).splitlines()
    assert "| FD | 3.00 (#1) | 2.0 (#3) | +1.0, 2 of 2 | weight 10: 7.0 (#1) | +6.0, 2 of 2 |" in lines
    assert "| CRD | 2.50 (#2) | 5.0 (#1) | +4.0, 2 of 2 | 5.0 (#2) | +4.0, 2 of 2 |" in lines
    assert lines[-1].startswith("Published order: FD > CRD > ICL. Here: CRD > ICL > FD, rank correlation -0.50, 2 of 3")
    assert lines[-1].endswith(
        "chosen on the tuning sets: FD > CRD > ICL, rank correlation +1.00, 0 of 3 pairs reversed."
    )


def test_combinations_are_compared_with_the_best_single_method(tmp_path):
    both = (
        "  - {name: crd-fd, label: CRD + FD, kind: combination, published: 4, set: {loss.weights: {crd: 1, fd: 1}}}\n"
    )
    tiny = load_study(write(tmp_path, TINY.replace("sweeps:", f"{both}sweeps:"))).study
    scores = {"baseline": [1, 1], "fd": [5, 5], "crd": [4, 4], "crd-fd": [8, 4]}
    final = [run(name, seed, points) for name, row in scores.items() for seed, points in enumerate(row)]
    chosen = {variant.name: {"optim.lr": 0.001} for variant in tiny.variants}
    text = narrative(StudyResults(tiny, None, chosen, {}, [], final, [[run("fd", 0, 1), run("fd", 0, 2)]], ABOUT))
    assert "gain over the baseline: CRD + FD +5.0; the best single method: FD +4.0." in text
    assert (
        "CRD + FD, scores +1.0 points relative to it (wins on 1 of 2 seeds). Published: CRD + FD 4.00, FD 3.00." in text
    )


def test_the_table_and_its_provenance(tmp_path):
    results = findings(tmp_path, {"baseline": [5, 6], "fd": [10, 10], "crd": [12, 14], "icl": [9, 12]})
    lines = markdown_table(results).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["CRD", "ICL", "FD", "baseline"]
    assert "| CRD | 0.001 | 13.0 (12.0-14.0) | **13.0 (12.0-14.0)** | +7.5, 2 of 2 | 0.90 | 0.50 | 2.50 |" in lines
    text = provenance(results)
    assert "`clipkd study x`, a machine, 11.0 hours of training, 2026-01-02, runs of commit c0, c1; torch 2." in text


@pytest.mark.parametrize(("points", "expected"), [([(1, 2), (2, 4), (3, 9)], 1), ([(1, 2), (2, 2)], None)])
def test_correlation_needs_points_that_vary(points, expected):
    assert correlation(points) == expected
    assert correlation([(1, 3), (2, 3), (3, 3)]) is None


def test_the_deviation_over_seeds_is_pooled():
    assert seed_deviation([[1, 3], [5, 5]]) == pytest.approx(1)  # variances 2 and 0
    assert seed_deviation([[1], [2]]) is None
