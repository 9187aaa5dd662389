"""Which machines have bfloat16, by what they say of themselves."""

import pytest
import tensorflow as tf

from tfnvp.training import hardware


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fma avx2", False),
        ("avx512f avx512_vnni", False),
        ("avx512_bf16", True),
        ("amx_bf16", True),
    ],
)
def test_of_a_cpu(flags, expected, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : fpu {flags} sse\n")
    monkeypatch.setattr(hardware, "Path", lambda path: cpuinfo)
    assert hardware.has_bfloat16() is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((9, 0), True)])
def test_of_a_gpu(capability, expected, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert hardware.has_bfloat16() is expected
