"""The `tf.distribute` strategies under which a flow trains as on one device."""

import tensorflow as tf

#: TPUs are here by TensorFlow's word alone: docs/devices.md says what was tried where.
KNOWN = {
    name: getattr(tf.distribute, name)
    for name in (
        "OneDeviceStrategy", "MirroredStrategy", "MultiWorkerMirroredStrategy", "TPUStrategy",
    )
}  # fmt: skip


def check_strategy(strategy: tf.distribute.Strategy, jit_compile: bool | str) -> None:
    """Raises a ValueError for a strategy under which training is another, or was never tried."""
    if jit_compile is True and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "jit_compile must be False or 'auto' on several replicas, which XLA does not compile "
            f"together, got jit_compile=True under {type(strategy).__name__}"
        )
    if not isinstance(strategy, (*KNOWN.values(), _Default)):
        raise ValueError(
            f"the strategy must be one of {', '.join(KNOWN)}, or none: "
            f"under {type(strategy).__name__} training was not found to be that of one device"
        )


with tf.Graph().as_default():
    # Where no strategy is set, TensorFlow has one that has no public name.
    _Default = type(tf.distribute.get_strategy())
