"""Configuration files of training programs: what each says of the schedule and of saving, as arguments of a Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.configs.files import read_file
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    import os

    from pytest_ckpt.configs.schedule import Schedule


def read(path: str | os.PathLike[str], *, dataset_len: int | None = None, world_size: int = 1) -> Schedule:
    """Return the schedule that a configuration file describes.

    Args:
        path: of a YAML or JSON file of Axolotl, of LLaMA-Factory, or with arguments of transformers.
        dataset_len: how many samples the trainer is given; read from the data files where they are local if it is None.
        world_size: processes of the real run.

    Raises:
        InvalidArgument: the file can't be read, is of no known kind, or does not say how long the run is.
    """
    given = read_file(path, dataset_len=dataset_len, world_size=world_size)
    from pytest_ckpt.configs import arguments, axolotl, llamafactory

    if axolotl.recognises(given.values):
        return axolotl.schedule(given)
    if llamafactory.recognises(given.values):
        return llamafactory.schedule(given)
    if arguments.recognises(given.values):
        return arguments.schedule(given)
    message = (
        f"{given.path} is no configuration that is known here: expected one of Axolotl (micro_batch_size, base_model), of "
        "LLaMA-Factory (stage, finetuning_type) or arguments of transformers (num_train_epochs or max_steps); "
        f"found {', '.join(map(str, list(given.values)[:6])) or 'nothing'}"
    )
    raise InvalidArgument(message)
