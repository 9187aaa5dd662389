"""The commands `presets` and `info`: which models there are, and what is known of one."""

from typing import Any

import numpy as np

from tfnvp.cli import loading, terminal
from tfnvp.cli.options import Json, Model
from tfnvp.models import presets as architectures
from tfnvp.serving import SavedModel


def presets(as_json: Json = False) -> None:
    """Lists the named architectures, and the test bits/dim of those that ship trained.

    Example: tfnvp presets
    """
    listed = {name: architectures.get(name) for name in architectures.names()}
    for name in architectures.trained():
        listed[name]["test_bits_per_dim"] = architectures.card(name)["bits_per_dim"]["test"]
    if as_json:
        terminal.print_json(listed)
        return
    for name, sizes in listed.items():
        size = "x".join(map(str, sizes["image_shape"]))
        bits = sizes.get("test_bits_per_dim")
        trained = f"  trained: {bits:.2f} bits/dim" if bits else ""
        blocks = sizes["residual_blocks"]
        depth = f"{sizes['num_scales']} scales, {blocks} block{'s' * (blocks != 1)}"
        print(f"{name:<20} {size:<8} {depth}, {sizes['filters']} filters{trained}")


def info(model: Model, as_json: Json = False) -> None:
    """Prints what is known of a model.

    Example: tfnvp info digits
    """
    facts = {"model": model, **_facts(loading.load(model))}
    if model in architectures.trained():
        card = architectures.card(model)
        facts |= {key: card[key] for key in ("data", "bits_per_dim", "command")}
    if as_json:
        terminal.print_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = [f"{k} {v}" for k, v in value.items()]
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        print(f"{key:<17} {value}")


def _facts(flow: loading.Flow) -> dict[str, Any]:
    images = loading.is_of_images(flow)
    if isinstance(flow, SavedModel):
        keys = ("image_shape", "levels") if images else ("event_size",)
        return {key: getattr(flow, key) for key in (*keys, "conditional", "signatures")}
    facts = {"parameters": flow.count_params(), **flow.get_config()}
    if images:
        scales = flow.latents_by_scale(np.zeros(flow.image_shape, "float32"))
        facts["latents_by_scale"] = [z.shape.as_list() for z in scales]
    return facts
