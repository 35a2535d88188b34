"""The model of a recipe as verl's processes need it: its directory, and its renderer without its weights."""

from pathlib import Path

from recall.renderer import Renderer, build
from recall.trainers.recipe import TrainRecipe


def model_path(recipe: TrainRecipe) -> Path:
    """The directory of the model; it has to be there under the same name on every node.

    Raises:
        ConfigError: there is none on this machine.
    """
    from recall.policy.torch.loading import resolve

    return resolve(recipe.policy.model).resolve()


def renderer_of(recipe: TrainRecipe) -> Renderer:
    """The renderer of the model and the recipe's dialect.

    Raises:
        ConfigError: the tokenizer or the template will not do.
    """
    from recall.policy.torch.loading import load_tokenizer

    return build(load_tokenizer(model_path(recipe)), recipe.policy.dialect, recipe.policy.template)
