"""What the benchmarks compare is comparable."""

import json

import numpy as np
import pytest

import tfnvp
from benchmarks import throughput
from tfnvp.layers.fused_batch_normalization import FusedBatchNormalization

ARCHITECTURE = {"image_shape": (8, 8, 3), "num_scales": 3, "filters": 8, "residual_blocks": 2}


def test_the_torch_peer_is_the_same_model(randomize):
    """The same parameters give the same log_prob."""
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra `benchmarks`")
    from benchmarks.peers import torch_real_nvp

    model = randomize(tfnvp.ImageRealNVP(**ARCHITECTURE))
    for layer in model._flatten_layers():
        if isinstance(layer, FusedBatchNormalization) and not layer.affine:
            layer.scale.assign(np.ones(layer.scale.shape))
            layer.offset.assign(np.zeros(layer.offset.shape))
    peer = torch_real_nvp.RealNVP(**ARCHITECTURE)
    torch_real_nvp.load(peer, model)
    peer.eval()
    x = np.random.default_rng(0).uniform(size=(5, 8, 8, 3)).astype("float32")
    log_prob = peer.log_density(torch.from_numpy(x).permute(0, 3, 1, 2)).detach()
    np.testing.assert_allclose(log_prob, model.log_prob(x), rtol=1e-4)
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert sum(p.numel() for p in peer.parameters()) == parameters


@pytest.mark.slow
def test_prints_a_line_a_workload_with_the_ratio(monkeypatch, capsys):
    override = json.dumps({"filters": 2, "residual_blocks": 1, "num_scales": 1})
    arguments = ["--preset", "digits", "--override", override, "--batch", "2", "--runs", "7"]
    arguments += ["--workload", "log_prob", "--against", "tfp_idiom"]
    monkeypatch.setattr("sys.argv", ["throughput", *arguments])
    throughput.main()
    ours, idiom = map(json.loads, capsys.readouterr().out.splitlines())
    assert ours["contender"] == "tfnvp" and idiom["contender"] == "tfp_idiom"
    assert ours["workload"] == "log_prob" and ours["batch"] == 2
    assert ours["parameters"] == idiom["parameters"] > 0
    for record in (ours, idiom):
        assert record["images_per_second"] > 0
        assert record["first_step_seconds"] > 0
        assert record["peak_rss_mb"] > 100
    ratio = ours["images_per_second"] / idiom["images_per_second"]
    assert idiom["tfnvp_is_faster_by"] == pytest.approx(ratio, abs=0.02)
