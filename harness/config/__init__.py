"""Recipes: one typed, strictly validated YAML file describes a run completely."""

from harness.config.data import AugmentConfig, DataConfig
from harness.config.errors import RecipeError
from harness.config.evaluation import EvalConfig, EvalSet
from harness.config.load import dump_recipe, load_recipe, parse_recipe, read_run_recipe
from harness.config.loss import LossConfig
from harness.config.model import ModelConfig, TeacherConfig
from harness.config.published import PublishedConfig
from harness.config.recipe import PathsConfig, Recipe
from harness.config.shipped import recipe_names, recipes_dir
from harness.config.training import OptimConfig, ScheduleConfig, TrainConfig

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "EvalConfig",
    "EvalSet",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "PathsConfig",
    "PublishedConfig",
    "Recipe",
    "RecipeError",
    "ScheduleConfig",
    "TeacherConfig",
    "TrainConfig",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "read_run_recipe",
    "recipe_names",
    "recipes_dir",
]
