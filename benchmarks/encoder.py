"""Our transformer beside transformers' own PE-AV encoder: same weights, inputs and sizes, one training step each.

A step is forward and backward of a scalar. The two run in turn, together with "the products alone": the same linear, convolution and
attention products, forward and backward, at the padded sizes, as bare matrix products into memory that is there already. Memory is the
peak of what a step has allocated beyond parameters and inputs. Run it with nothing else running: `python benchmarks/encoder.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jsonargparse import auto_cli
from measure import peak_megabytes, timed
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.pe_audio_video import modeling_pe_audio_video as hf
from transformers.models.pe_audio_video.configuration_pe_audio_video import PeAudioVideoEncoderConfig

from peav.encoders.transformer import Transformer
from peav.masking import lengths_to_mask


class Reference(nn.Module):
    """transformers' PeAudioVideoEncoder from the joined frames onwards, with SDPA attention."""

    def __init__(self, dim: int, num_layers: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.config = PeAudioVideoEncoderConfig(
            hidden_size=dim,
            intermediate_size=mlp_dim,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            head_dim=dim // num_heads,
        )
        self.config._attn_implementation = "sdpa"
        self.patch_embedder = hf.PeAudioVideoEncoderPatchEmbedder(self.config)
        self.layers = nn.ModuleList(hf.PeAudioVideoEncoderLayer(self.config, i) for i in range(num_layers))
        self.norm = hf.PeAudioVideoEncoderRMSNorm(dim, eps=self.config.rms_norm_eps)
        self.rotary_emb = hf.PeAudioVideoEncoderRotaryEmbedding(self.config)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        x, mask = self.patch_embedder(x, padding_mask=mask)
        if mask is not None:
            mask = create_bidirectional_mask(config=self.config, inputs_embeds=x, attention_mask=mask)
        rotary = self.rotary_emb(x, torch.arange(x.shape[1], device=x.device)[None])
        for layer in self.layers:
            x = layer(x, attention_mask=mask, position_embeddings=rotary)
        x = self.output(self.norm(x))
        return x[:, 0], x[:, 1:]

    def weights(self) -> dict[str, Tensor]:
        """Returns the weights under the names of `peav.encoders.transformer.Transformer`."""
        theirs = self.state_dict()
        ours = {"cls": theirs["patch_embedder.class_embedding"].flatten()}
        for i in (1, 2):
            for kind in ("weight", "bias"):
                block = f"patch_embedder.resnet_block.block{i}"
                ours[f"resnet.norm{i}.{kind}"] = theirs[f"{block}.groupnorm.{kind}"]
                ours[f"resnet.conv{i}.{kind}"] = theirs[f"{block}.project.{kind}"]
        for i in range(len(self.layers)):
            layer, block = f"layers.{i}", f"blocks.{i}"
            ours[f"{block}.attention_norm.weight"] = theirs[f"{layer}.input_layernorm.weight"]
            ours[f"{block}.mlp_norm.weight"] = theirs[f"{layer}.post_attention_layernorm.weight"]
            ours[f"{block}.attention.qkv.weight"] = torch.cat(
                [theirs[f"{layer}.self_attn.{name}_proj.weight"] for name in "qkv"]
            )
            ours[f"{block}.attention.out.weight"] = theirs[f"{layer}.self_attn.o_proj.weight"]
            for name in "qk":
                ours[f"{block}.attention.{name}_norm.weight"] = theirs[f"{layer}.self_attn.{name}_norm.weight"]
            ours[f"{block}.gate_up.weight"] = torch.cat(
                [theirs[f"{layer}.mlp.{name}_proj.weight"] for name in ("gate", "up")]
            )
            ours[f"{block}.down.weight"] = theirs[f"{layer}.mlp.down_proj.weight"]
        return ours | {"norm.weight": theirs["norm.weight"], "output.weight": theirs["output.weight"]}


def products(
    batch: int, length: int, dim: int, num_layers: int, num_heads: int, mlp_dim: int, device: str, dtype: torch.dtype
) -> Callable[[], None]:
    """Returns a function that multiplies all matrices of a step, forward and backward, and does nothing else."""
    tokens, head_dim = batch * (length + 1), dim // num_heads
    shapes = [(1, tokens, dim, dim)] + 2 * [(1, tokens, 3 * dim, dim)]
    shapes += num_layers * [(1, tokens, dim, 3 * dim), (1, tokens, dim, dim)]
    shapes += num_layers * [(1, tokens, dim, 2 * mlp_dim), (1, tokens, mlp_dim, dim)]
    shapes += num_layers * [
        (batch * num_heads, length + 1, k, n) for k, n in ((head_dim, length + 1), (length + 1, head_dim))
    ]
    calls = []
    for count, m, k, n in shapes:
        left, right, out = (torch.randn(count, *s, device=device, dtype=dtype) for s in ((m, k), (k, n), (m, n)))
        # The product, and the gradients of its left and its right factor.
        calls += [(left, right, out), (out, right.mT, torch.empty_like(left)), (left.mT, out, torch.empty_like(right))]

    def run() -> None:
        for a, b, out in calls:
            torch.bmm(a, b, out=out)

    return run


def compare(
    sizes: tuple[int, int, int, int], batch: int, length: int, masked_length: int, repeats: int, device: str, bf16: bool
) -> None:
    """Prints a table of two cases: nothing masked, and half of the clips masked at `masked_length`."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    torch.manual_seed(0)
    reference = Reference(*sizes).to(device)
    ours = Transformer(*sizes, theta=reference.config.rope_parameters["rope_theta"]).to(device)  # type: ignore[index]
    ours.load_state_dict(reference.weights())
    x = torch.randn(batch, length, sizes[0], device=device, requires_grad=True)
    weight = torch.randn(batch, length + 1, sizes[0], device=device)

    def step(model: nn.Module, mask: Tensor | None) -> Callable[[], tuple[Tensor, Tensor]]:
        def run() -> tuple[Tensor, Tensor]:
            x.grad = None
            model.zero_grad()
            with torch.autocast(device, dtype, enabled=bf16):
                pooled, frames = model(x, mask)
            valid = 1 if mask is None else mask.unsqueeze(-1)
            ((pooled * weight[:, 0]).sum() + (frames * weight[:, 1:] * valid).sum()).backward()
            return torch.cat((pooled.unsqueeze(1), frames * valid), 1).detach(), x.grad

        return run

    print(
        f"\n{device}, {'bf16 autocast' if bf16 else 'fp32'}, (width, layers, heads, MLP) = {sizes}, {batch} clips of {length} frames"
    )
    print(f"{'':34}{'step':>9}{'products':>10}{'step/products':>15}{'peak':>10}{'largest error':>15}")
    alone = products(batch, length, *sizes, device, dtype)
    lengths = torch.full((batch,), length, device=device)
    full = lengths_to_mask(lengths)
    lengths[::2] = masked_length
    for case, mask in (("nothing masked", full), (f"half masked at {masked_length}", lengths_to_mask(lengths))):
        # transformers' fastest way for full clips is to get no mask.
        runs = {"transformers": step(reference, None if mask is full else mask), "peav": step(ours, mask)}
        (expected, expected_gradient), (found, found_gradient) = runs["transformers"](), runs["peav"]()
        error = (found - expected).abs().max().item()
        gradient_error = ((found_gradient - expected_gradient)[mask].norm() / expected_gradient[mask].norm()).item()
        tolerance = 0.1 if bf16 else 1e-4
        if error > tolerance or gradient_error > tolerance:
            raise SystemExit(
                f"{case}: outputs differ by {error:.2g}, gradients by {gradient_error:.2g} relatively; allowed: {tolerance}"
            )
        times = {name: 1000 * wall for name, (wall, _) in timed({**runs, "products": alone}, repeats, device).items()}
        peaks = {name: peak_megabytes(run, device) for name, run in runs.items()}
        for name in runs:
            print(
                f"{case + ', ' + name:34}{times[name]:6.0f} ms{times['products']:7.0f} ms{times[name] / times['products']:15.2f}"
                f"{peaks[name]:7.0f} MB{error if name == 'peav' else 0:15.1e}"
            )
        ratio, memory = times["transformers"] / times["peav"], peaks["transformers"] / peaks["peav"]
        print(f"{case + ', transformers / peav':34}{ratio:9.2f}{memory:35.2f}")


def main(
    dim: int = 768,
    num_layers: int = 4,
    num_heads: int = 6,
    mlp_dim: int = 2048,
    batch: int = 8,
    length: int = 250,
    masked_length: int = 180,
    repeats: int = 9,
    threads: int = 2,
) -> None:
    torch.set_num_threads(threads)
    sizes = (dim, num_layers, num_heads, mlp_dim)
    compare(sizes, batch, length, masked_length, repeats, "cpu", bf16=False)
    if torch.cuda.is_available():
        compare(sizes, batch, length, masked_length, repeats, "cuda", bf16=True)


if __name__ == "__main__":
    auto_cli(main)
