"""The number formats that the machine computes fast."""

from pathlib import Path

import tensorflow as tf


def has_bfloat16() -> bool:
    """Whether mixed precision pays: bfloat16 is in the hardware.

    True with a GPU of compute capability 8 or more, or a CPU with AVX-512 BF16 or AMX. Other CPUs
    emulate it, ten times slower than float32.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(found.get("compute_capability", (0, 0)) >= (8, 0) for found in details)
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16"})
