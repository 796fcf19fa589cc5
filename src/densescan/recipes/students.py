"""The students that the paper's tables compare: each differs from the usual one in a single choice."""

from dataclasses import dataclass, replace

from densescan.evaluation.published import TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_8, PublishedRow
from densescan.recipes.recipe import FROM_TEACHER, NOT_RUN, Recipe, Standing
from densescan.training.config import LoopConfig
from densescan.training.distillation_dpo import DistillationDpoConfig
from densescan.training.score_distillation import ScoreDistillationConfig

LAMS = (1.05, 1.2, 1.5, 2.0)
"""Noise scales of the second scene that Table 4 compares with the usual one, 1.1."""
SCENE_WEIGHT, POINT_WEIGHT = 0.5, 0.01
"""Weights of the structural terms of ScoreLiDAR."""


@dataclass(frozen=True)
class _Choice:
    """What a student differs in, and its row."""

    about: str
    config: DistillationDpoConfig
    variant: str = ""
    needs: tuple[tuple[str, str], ...] = FROM_TEACHER
    row: PublishedRow = TABLE_4.rows[0]


def score_distilled(
    size: str, config: ScoreDistillationConfig, loop: LoopConfig, as_published: bool = False
) -> tuple[Recipe, ...]:
    """The student of Table 8 that knows no preference, and ScoreLiDAR.

    Args: as_published: the tables' scores are those to expect.
    """
    structural = replace(config, scene_weight=SCENE_WEIGHT, point_weight=POINT_WEIGHT)
    in_table, in_none = expected(TABLE_8.rows[1]), f"{NOT_RUN}; the paper has no row of it"
    kinds = (
        ("A student by score distillation alone (Table 8).", config, "", in_table),
        (
            "ScoreLiDAR: score distillation with structural terms. In none of the tables.",
            structural,
            "scorelidar",
            in_none,
        ),
    )
    return tuple(
        Recipe(
            stage="score-distillation",
            size=size,
            about=about,
            config=choices,
            loop=loop,
            variant=variant,
            needs=FROM_TEACHER,
            standing=Standing(score=score) if as_published else Standing(),
        )
        for about, choices, variant, score in kinds
    )


def preferring(
    size: str, config: DistillationDpoConfig, loop: LoopConfig, as_published: bool = False
) -> tuple[Recipe, ...]:
    """The students of Distillation-DPO, from the usual one on.

    Args: as_published: the tables' scores are those to expect.
    """
    return tuple(
        Recipe(
            stage="distillation-dpo",
            size=size,
            about=choice.about,
            config=choice.config,
            loop=loop,
            variant=choice.variant,
            needs=choice.needs,
            standing=Standing(score=expected(choice.row)) if as_published else Standing(),
        )
        for choice in _choices(config)
    )


def _choices(config: DistillationDpoConfig) -> tuple[_Choice, ...]:
    def paired(**changes: object) -> DistillationDpoConfig:
        return replace(config, pairs=replace(config.pairs, **changes))  # type: ignore[arg-type]

    return (
        _Choice("The usual student by Distillation-DPO: two assistants, pairs by CD, lam 1 and 1.1.", config),
        *(
            _Choice(
                f"The usual student, with {lam} in place of 1.1 as noise scale of the second scene (Table 4).",
                paired(lams=(1.0, lam)),
                f"lam-{lam}",
                row=row,
            )
            for lam, row in zip(LAMS, TABLE_4.rows[1:], strict=True)
        ),
        _Choice(
            "The usual student, of the teacher that Diffusion-DPO has fine-tuned (Table 5).",
            config,
            "tuned-teacher",
            (("--teacher", "diffusion-dpo"),),
            TABLE_5.rows[3],
        ),
        _Choice(
            "The usual student, with pairs ranked by JSD (Table 6): in three dimensions, as the release ranks.",
            paired(metric="jsd"),
            "jsd",
            row=TABLE_6.rows[1],
        ),
        _Choice(
            "The usual student, with one assistant for winners and losers (Table 7).",
            replace(config, one_assistant=True),
            "one-assistant",
            row=TABLE_7.rows[1],
        ),
    )


def scores(row: PublishedRow) -> str:
    """The values of a published row, in words."""
    emd = "" if row.emd is None else f", EMD as released {row.emd:.2f}"
    seconds = "" if row.seconds is None else f", {row.seconds:.2f} s on the authors' hardware"
    return f"CD {row.cd:.3f} m, JSD BEV {row.jsd:.3f}{emd}{seconds}"


def expected(row: PublishedRow) -> str:
    """The published scores of what was not run here."""
    return f"{scores(row)}, refined, as published; {NOT_RUN}"
