"""Why a component is not what it was after a resume, and what to do about it, whatever the framework."""

from __future__ import annotations

from typing import Final

#: The likely cause and the fix, by component, or by what is known beyond that.
CAUSES: Final = {
    "data": (
        "the position in the data is not restored: other batches follow than in the uninterrupted run.",
        "save and restore the sampler's or the data loader's state, or skip the batches already seen in the same order.",
    ),
    "drawn data": (
        "the state of the random generators is not restored, and the batches, their order or augmentation, are drawn from it.",
        "save the states of all random generators in use and restore them right before training goes on.",
    ),
    "weights": ("the weights are not those that were saved.", "load the model's state dict before training goes on."),
    "weights between updates": (
        (
            "the first steps after the resume are the same, and then something other than the optimizer changed the weights in "
            "another way: slow weights, an average that is put back, or a clamp goes by state that is not restored."
        ),
        "save the state of what changes the weights between updates, and load it on resume.",
    ),
    "buffers": (
        "buffers of the model, such as running statistics, are not restored.",
        "save and load the whole state dict of the model, buffers included.",
    ),
    "optimizer": ("the optimizer's state is not restored.", "save optimizer.state_dict() and load it on resume."),
    "param_groups": (
        "settings of the optimizer's parameter groups are not restored.",
        "load the optimizer's state dict after it was built, and do not overwrite its groups.",
    ),
    "lr": (
        "the learning rate is not continued: the scheduler's state is not restored.",
        "save scheduler.state_dict() and load it on resume, after the optimizer's.",
    ),
    "scheduler": ("the scheduler does not stand where it stood.", "save scheduler.state_dict() and load it on resume."),
    "scaler": ("the gradient scaler starts anew.", "save scaler.state_dict() and load it on resume."),
    "ema": (
        "the averaged weights (EMA) are not restored.",
        "save the average and load it on resume, not only the model.",
    ),
    "counter": ("the step counter is not restored.", "save the step and continue counting from it."),
    "rng": (
        (
            "the random generators are in another state: not restored, or drawn from after that (a DataLoader draws a seed each "
            "time it is iterated). So dropout, augmentation or noise draw other numbers."
        ),
        "save the states of all random generators in use and restore them right before training goes on.",
    ),
    "gradients": (
        (
            "the same weights, data and random state led to other gradients: state outside of what was compared, such as "
            "an attribute of the model or of the loss, is not restored."
        ),
        "look for state that lives in Python attributes and is not part of a state dict.",
    ),
    "early gradients": (
        (
            "batches before the save are part of this update: their gradients had been accumulated and not yet applied, and they "
            "are in no checkpoint."
        ),
        "step the optimizer before saving, at the end of an epoch as well, or save the gradients with the checkpoint.",
    ),
    "update": (
        "the same gradients led to other weights: state of the optimizer or of a hook on it is not restored.",
        "look for state of the update that is not in the optimizer's state dict.",
    ),
}
